//! Fixed little-endian layouts in a byte buffer, written and read without allocating.
//!
//! Contract: what doesn't fit, or isn't there, is [`Short`]; nothing is written past the buffer and nothing panics.
//! Not here: what the bytes mean (`record`, `page`, `handover`) and whether they are whole (`slots`).

/// The buffer ended before the value did. What was written or read so far is meaningless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read or write a fixed layout: the buffer is too short")]
pub struct Short;

/// Writes values one after the other.
#[derive(Debug)]
pub struct Put<'a> {
    buffer: &'a mut [u8],
    at: usize,
}

impl<'a> Put<'a> {
    /// Begins at the start of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, at: 0 }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Short`] if they don't fit.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Short> {
        let end = self.at.checked_add(bytes.len()).ok_or(Short)?;
        self.buffer.get_mut(self.at..end).ok_or(Short)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    /// Appends one byte.
    ///
    /// # Errors
    /// [`Short`] if it doesn't fit.
    pub fn u8(&mut self, value: u8) -> Result<(), Short> {
        self.bytes(&[value])
    }

    /// Appends two bytes.
    ///
    /// # Errors
    /// [`Short`] if they don't fit.
    pub fn u16(&mut self, value: u16) -> Result<(), Short> {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends four bytes.
    ///
    /// # Errors
    /// [`Short`] if they don't fit.
    pub fn u32(&mut self, value: u32) -> Result<(), Short> {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends eight bytes.
    ///
    /// # Errors
    /// [`Short`] if they don't fit.
    pub fn u64(&mut self, value: u64) -> Result<(), Short> {
        self.bytes(&value.to_le_bytes())
    }

    /// How many bytes were written.
    pub fn written(&self) -> usize {
        self.at
    }
}

/// Reads values one after the other.
#[derive(Debug)]
pub struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    /// Begins at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        self.bytes(N)?.try_into().map_err(|_| Short)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Short`] if none is left.
    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next two bytes.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn u16(&mut self) -> Result<u16, Short> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn u32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes.
    ///
    /// # Errors
    /// [`Short`] if fewer are left.
    pub fn u64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
