//! Memory for payloads that comes back: a batch of them is copied out of SQLite by one thread, and dropped by others one by one as
//! the runs end. An allocator may give the pages to the kernel after each batch and be given them, emptied, for the next.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Buffers are whole multiples of this many bytes, so that they fit again.
const STEP: usize = 1_024;
/// Larger payloads have memory of their own: copying them takes longer than getting it.
const BUFFER_BYTES_MAX: usize = 64 * STEP;
/// What is kept for later, at most.
const FREE_BYTES_MAX: usize = 4 << 20;

/// Where buffers come from and go to. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Free>>);

/// Empty buffers, by their number of steps less one.
#[derive(Debug, Default)]
struct Free {
    by_steps: Vec<Vec<Vec<u8>>>,
    bytes: usize,
}

impl Buffers {
    /// A copy that is on its own from now on.
    pub(crate) fn copy(&self, bytes: &[u8]) -> Bytes {
        if !(STEP..=BUFFER_BYTES_MAX).contains(&bytes.len()) {
            return Bytes::copy_from_slice(bytes);
        }
        let steps = bytes.len().div_ceil(STEP);
        let mut filled = self.take(steps).unwrap_or_else(|| Vec::with_capacity(steps * STEP));
        filled.extend_from_slice(bytes);
        Bytes::from_owner(Buffer { filled, home: self.clone() })
    }

    fn take(&self, steps: usize) -> Option<Vec<u8>> {
        let mut free = self.lock();
        let found = free.by_steps.get_mut(steps - 1)?.pop()?;
        free.bytes -= found.capacity();
        Some(found)
    }

    fn give_back(&self, mut empty: Vec<u8>) {
        empty.clear();
        let steps = empty.capacity() / STEP;
        let mut free = self.lock();
        if free.bytes + empty.capacity() > FREE_BYTES_MAX {
            return;
        }
        if free.by_steps.len() < steps {
            free.by_steps.resize_with(steps, Vec::new);
        }
        free.bytes += empty.capacity();
        free.by_steps[steps - 1].push(empty);
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer in use.
struct Buffer {
    filled: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.filled
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give_back(mem::take(&mut self.filled));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(buffers: &Buffers) -> usize {
        buffers.lock().bytes
    }

    #[test]
    fn a_copy_is_whole_and_its_memory_is_used_again() {
        let buffers = Buffers::default();
        let first = buffers.copy(&[1; 4_100]);
        let place = first.as_ptr();
        assert_eq!((&first[..], free(&buffers)), (&[1; 4_100][..], 0));
        drop(first);
        assert_eq!(free(&buffers), 5 * STEP);
        // Of another size, it does not fit.
        assert_eq!(buffers.copy(&[2; 2_000]), [2; 2_000][..]);
        let again = buffers.copy(&[3; 5_000]);
        assert_eq!((again.as_ptr(), &again[..]), (place, &[3; 5_000][..]));
    }

    #[test]
    fn a_clone_keeps_the_memory_from_being_used_again() {
        let buffers = Buffers::default();
        let (first, clone) = {
            let first = buffers.copy(&[1; STEP]);
            (first.clone(), first)
        };
        drop(first);
        assert_eq!((free(&buffers), &clone[..]), (0, &[1; STEP][..]));
        assert_eq!(buffers.copy(&[2; STEP]), [2; STEP][..]);
        assert_eq!(clone, [1; STEP][..]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::default();
        let many = (0..1_000).map(|_| buffers.copy(&[0; 8 * STEP])).collect::<Vec<_>>();
        drop(many);
        assert_eq!(free(&buffers), FREE_BYTES_MAX);
        drop([buffers.copy(&[0; STEP - 1]), buffers.copy(&[0; BUFFER_BYTES_MAX + 1]), buffers.copy(&[])]);
        assert_eq!(free(&buffers), FREE_BYTES_MAX);
    }
}
