//! Bytes that must not be seen: wiped when dropped, without `Debug` of their content, compared in constant time.

use zeroize::Zeroizing;

/// A secret of any length.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Takes bytes over; the caller's copy, if it made one, is its own to wipe.
    pub fn new(bytes: Vec<u8>) -> Self {
        if bytes.len() == bytes.capacity() {
            return Self(Zeroizing::new(bytes.into_boxed_slice()));
        }
        // It is kept: no longer than it is. What it was made in is wiped.
        Self::from(Zeroizing::new(bytes).as_slice())
    }

    /// The bytes themselves, to be handed to a primitive and nowhere else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.expose(), other.expose()).is_ok()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_no_more_room_than_it_has_bytes() {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend([1, 2, 3]);
        let secret = Secret::new(bytes);
        assert_eq!(secret.expose(), [1, 2, 3]);
        assert_eq!(size_of::<Secret>(), 16);
    }
}
