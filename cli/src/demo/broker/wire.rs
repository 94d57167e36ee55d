//! Kafka's primitive types, as in the versions before KIP-482.

use anyhow::{Context, Result, ensure};

/// Reads a request from front to back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        ensure!(length <= self.0.len(), "the request ends too early");
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        Ok(head)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    pub(super) fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array_of()?))
    }

    pub(super) fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array_of()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array_of()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array_of()?))
    }

    pub(super) fn string_or_null(&mut self) -> Result<Option<String>> {
        match usize::try_from(self.i16()?) {
            Ok(length) => Ok(Some(String::from_utf8(self.take(length)?.to_vec())?)),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn string(&mut self) -> Result<String> {
        self.string_or_null()?.context("a null string")
    }

    /// Null is empty.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        match usize::try_from(self.i32()?) {
            Ok(length) => self.take(length),
            Err(_) => Ok(&[]),
        }
    }

    pub(super) fn array_or_null<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        match usize::try_from(self.i32()?) {
            Ok(length) => (0..length).map(|_| element(self)).collect::<Result<_>>().map(Some),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn array<T>(&mut self, element: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        Ok(self.array_or_null(element)?.unwrap_or_default())
    }
}

/// Writes an answer; its frame's length comes first.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(correlation: i32) -> Self {
        let mut writer = Self(vec![0; 4]);
        writer.i32(correlation);
        writer
    }

    pub(super) fn frame(mut self) -> Result<Vec<u8>> {
        let length = i32::try_from(self.0.len() - 4)?;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        Ok(self.0)
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.0.push(value.into());
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn string(&mut self, value: &str) -> Result<()> {
        self.i16(i16::try_from(value.len())?);
        self.0.extend(value.as_bytes());
        Ok(())
    }

    pub(super) fn null_string(&mut self) {
        self.i16(-1);
    }

    /// Several pieces as one `BYTES`.
    pub(super) fn bytes(&mut self, pieces: &[impl AsRef<[u8]>]) -> Result<()> {
        let length: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        self.i32(i32::try_from(length)?);
        for piece in pieces {
            self.0.extend(piece.as_ref());
        }
        Ok(())
    }

    pub(super) fn array<T>(
        &mut self,
        elements: &[T],
        mut element: impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.i32(i32::try_from(elements.len())?);
        elements.iter().try_for_each(|value| element(self, value))
    }
}
