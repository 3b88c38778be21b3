//! An entry's bytes: who it is, what it holds, and a digest over what it holds.
//!
//! ```text
//! "svod-obj"  8     what it is
//! version     4     of this layout
//! digest      32    SHA-256 of both lengths and the payload
//! key length  8     in bytes
//! length      8     of the payload, in bytes
//! key               its parts, each name and each value after its length
//! payload
//! ```
//!
//! Numbers are little-endian. Magic and version are compared, and so is the key: whoever reads an
//! entry has the one that it looks for, or its digest, which is the file's name. All else is under
//! the digest, so that no byte can change unseen.

use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"svod-obj";
const VERSION: u32 = 2;
const DIGESTED: usize = 44;

/// How long an entry is before its key.
pub(super) const HEAD: usize = 60;

/// The bytes of an entry; its key is in two pieces.
pub(super) fn encode(key: [&[u8]; 2], payload: &[u8]) -> Vec<u8> {
    let key_len = key[0].len() + key[1].len();
    let mut bytes = Vec::with_capacity(HEAD + key_len + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend_from_slice(&(key_len as u64).to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    key.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.extend_from_slice(payload);
    let digest = digest(&bytes[DIGESTED..HEAD], payload);
    bytes[DIGESTED - 32..DIGESTED].copy_from_slice(&digest);
    bytes
}

fn digest(lengths: &[u8], payload: &[u8]) -> [u8; 32] {
    let digest = Sha256::new().chain_update(lengths).chain_update(payload);
    digest.finalize().into()
}

/// How long the key is that follows a head, and the payload after it.
///
/// # Errors
///
/// Why these are no bytes of an entry.
pub(super) fn lengths(head: &[u8]) -> Result<(u64, u64), &'static str> {
    let number = |at: usize| {
        let bytes = head.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    if !head.starts_with(MAGIC) {
        return Err("it does not begin as entries do");
    }
    if head.get(8..12) != Some(&VERSION.to_le_bytes()) {
        return Err("its layout is of another version");
    }
    number(DIGESTED)
        .zip(number(DIGESTED + 8))
        .ok_or("it is too short")
}

/// The key of an entry, which is to be compared, and the payload, as it was put.
///
/// # Errors
///
/// Why it is none.
pub(super) fn decode(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (key, payload) = lengths(bytes)?;
    let whole = (HEAD as u64)
        .checked_add(key)
        .and_then(|n| n.checked_add(payload));
    if whole != Some(bytes.len() as u64) {
        return Err("it is not as long as it says");
    }
    let key = usize::try_from(key).map_err(|_| "its key is too long")?;
    let (key, payload) = bytes[HEAD..].split_at(key);
    if bytes[DIGESTED - 32..DIGESTED] != digest(&bytes[DIGESTED..HEAD], payload) {
        return Err("its digest is not that of its bytes");
    }
    Ok((key, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_changes_unseen_and_none_is_missing_unseen() {
        let bytes = encode([b"the ", b"key"], b"the payload");
        assert_eq!(decode(&bytes), Ok((&b"the key"[..], &b"the payload"[..])));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let key = decode(&changed).map(|(key, _)| key);
                assert!(key != Ok(b"the key"), "byte {at}, bit {bit}");
            }
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn lengths_that_overflow_are_no_lengths() {
        let mut bytes = encode([b"key", b""], b"payload");
        bytes[DIGESTED..HEAD].fill(0xff);
        let digest = digest(&bytes[DIGESTED..HEAD], b"payload");
        bytes[DIGESTED - 32..DIGESTED].copy_from_slice(&digest);
        assert!(decode(&bytes).is_err());
    }
}
