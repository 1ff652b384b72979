//! A bounds-checked reader and a writer: no length from the wire is used before it is checked.

use crate::message::ParseError;

/// Reads big-endian fields from the front of a slice; every step says whether the bytes are there.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names the structure in `ParseError::Truncated`.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, ParseError> {
        self.array().map(|[b]: [u8; 1]| b)
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Result<u16, ParseError> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Result<u64, ParseError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next `N` bytes, copied.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or(self.truncated())?;
        self.bytes = tail;
        Ok(*head)
    }

    /// The next `n` bytes, borrowed.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], ParseError> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or(self.truncated())?;
        self.bytes = tail;
        Ok(head)
    }

    /// All that is left; the reader is empty after it.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Refuses bytes that no field accounts for.
    pub fn finish(self) -> Result<(), ParseError> {
        if self.is_empty() { Ok(()) } else { Err(ParseError::BadLength(self.what)) }
    }

    fn truncated(&self) -> ParseError {
        ParseError::Truncated(self.what)
    }
}

/// Appends big-endian fields to a vector.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, v: u8);
    /// Two bytes.
    fn put_u16(&mut self, v: u16);
    /// Four bytes.
    fn put_u32(&mut self, v: u32);
    /// Eight bytes.
    fn put_u64(&mut self, v: u64);
    /// The bytes as they are.
    fn put(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, v: u8) {
        self.push(v);
    }

    fn put_u16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Sets the 16-bit length field at `start + 2` of the structure that runs from `start` to the end.
///
/// What cannot be expressed is cut off to 65,535 bytes, so that nothing after it is misread as part of it.
pub(crate) fn close_u16(out: &mut Vec<u8>, start: usize) {
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out.truncate(start + usize::from(len));
    out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
}
