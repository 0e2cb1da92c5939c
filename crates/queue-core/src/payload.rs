//! What a task works on, and what it leaves behind: bytes that the queue never looks into.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// How a payload's bytes are to be read. Kept with the task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentType {
    /// JSON text in UTF-8, the default.
    #[default]
    Json,
    /// Bytes that only producer and worker understand.
    Binary,
}

impl ContentType {
    /// The stable number under which stores keep it.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Binary => 1,
        }
    }

    /// The content type of a stored number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Json),
            1 => Some(Self::Binary),
            _ => None,
        }
    }
}

/// The bytes a handler is given. They are opaque to the queue and come back exactly as they went in; `Debug` tells only
/// their number, so that they cannot leak into a log.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload {
    content_type: ContentType,
    body: Bytes,
}

impl Payload {
    /// JSON text. It is not checked here.
    #[must_use]
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { content_type: ContentType::Json, body: body.into() }
    }

    /// Bytes of this content type.
    #[must_use]
    pub fn new(content_type: ContentType, body: impl Into<Bytes>) -> Self {
        Self { content_type, body: body.into() }
    }

    /// How the bytes are to be read.
    #[must_use]
    pub const fn content_type(&self) -> ContentType {
        self.content_type
    }

    /// The bytes.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// A digest that tells whether two payloads are the same: how a repeated idempotency key with another payload is
    /// noticed even after the first task was pruned.
    #[must_use]
    pub fn digest(&self) -> PayloadDigest {
        let mut hash = Sha256::new();
        hash.update([self.content_type.code()]);
        hash.update(&self.body);
        PayloadDigest(hash.finalize().into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({:?}, {} bytes)", self.content_type, self.body.len())
    }
}

/// SHA-256 over content type and body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PayloadDigest([u8; 32]);

impl PayloadDigest {
    /// A digest as a store kept it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a completed task leaves behind.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum TaskResult {
    /// Nothing.
    #[default]
    None,
    /// A small JSON value.
    Value(Bytes),
    /// A value over the limit: the task completed, its result was dropped.
    Dropped {
        /// The size that was too large, in bytes.
        bytes: u64,
    },
}

impl TaskResult {
    /// The value if it fits into `bytes_max`, else a note that it was dropped.
    #[must_use]
    pub fn bounded(value: Bytes, bytes_max: u64) -> Self {
        let bytes = value.len() as u64;
        if bytes > bytes_max { Self::Dropped { bytes } } else { Self::Value(value) }
    }
}

impl fmt::Debug for TaskResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Value(value) => write!(f, "Value({} bytes)", value.len()),
            Self::Dropped { bytes } => write!(f, "Dropped({bytes} bytes)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_bytes() {
        assert_eq!(format!("{:?}", Payload::json("\"secret\"")), "Payload(Json, 8 bytes)");
        let results = [TaskResult::None, TaskResult::bounded("12".into(), 2), TaskResult::bounded("123".into(), 2)];
        assert_eq!(format!("{results:?}"), "[None, Value(2 bytes), Dropped(3 bytes)]");
    }

    #[test]
    fn the_digest_tells_payloads_apart() {
        let json = Payload::json("1");
        let binary = Payload::new(ContentType::Binary, "1");
        assert_eq!(json.digest(), json.clone().digest());
        assert_ne!(json.digest(), binary.digest());
        assert_eq!(PayloadDigest::from_bytes(*json.digest().as_bytes()), json.digest());
        assert_eq!(binary.body().as_ref(), b"1");
    }

    #[test]
    fn content_types_round_trip() {
        for content_type in [ContentType::Json, ContentType::Binary] {
            assert_eq!(ContentType::from_code(content_type.code()), Some(content_type));
        }
        assert_eq!(ContentType::from_code(9), None);
        assert_eq!(Payload::default().content_type(), ContentType::Json);
    }
}
