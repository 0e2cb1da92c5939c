//! The members of claims, as their rows keep them.

use queue_core::TaskId;

use crate::connection::Conn;
use crate::error::Failure;
use crate::sql::value;

/// Ids as a claim's row keeps them: 8 bytes each, big-endian, written as a hexadecimal literal.
pub(crate) fn encode(ids: impl IntoIterator<Item = TaskId>) -> String {
    let hex: String = ids.into_iter().map(|id| format!("{:016x}", id.get())).collect();
    if hex.is_empty() { "''".to_owned() } else { format!("0x{hex}") }
}

/// Ids out of a claim's row.
pub(crate) fn decode(bytes: &[u8]) -> impl Iterator<Item = TaskId> {
    bytes.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok().map(u64::from_be_bytes).and_then(TaskId::new))
}

/// The members of all claims, by id, each once. Some may not run any more.
pub(crate) async fn claimed_ids(conn: &mut Conn) -> Result<Vec<TaskId>, Failure> {
    let rows = conn.run("SELECT members FROM queue_claim".to_owned()).await?.pop().unwrap_or_default().rows;
    let mut ids = Vec::new();
    for row in &rows {
        let members: Vec<u8> = value(row, 0)?;
        ids.extend(decode(&members));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let ids = [1, 258].map(|id| TaskId::new(id).unwrap());
        assert_eq!(encode(ids), "0x00000000000000010000000000000102");
        assert_eq!(encode([]), "''");
        assert_eq!(decode(&[0, 0, 0, 0, 0, 0, 1, 2, 9]).collect::<Vec<_>>(), [ids[1]]);
    }
}
