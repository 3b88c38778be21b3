//! Parts of memory: a pointer, an element type, a length, and a lifetime.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

use super::guard::{Pages, Stray};
use crate::Error;
use crate::signature::{DType, Element};

/// Elements for reading: a part of a [`Buffer`](super::Buffer), or a slice of
/// the caller's.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    start: NonNull<u8>,
    dtype: DType,
    len: usize,
    /// Of the guarded buffer that this is a part of, if it is.
    pages: Option<&'a Pages>,
    borrow: PhantomData<&'a [u8]>,
}

/// Elements for writing: a part of a [`Buffer`](super::Buffer), or a slice of
/// the caller's. No other view of them exists meanwhile.
#[derive(Debug)]
pub struct ViewMut<'a> {
    start: NonNull<u8>,
    dtype: DType,
    len: usize,
    /// Of the guarded buffer that this is a part of, if it is.
    pages: Option<&'a Pages>,
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: a view is a shared slice of plain numbers. Of the pages that they lie in,
// the slack is touched, atomically.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}
// SAFETY: a mutable view is an exclusive slice of plain numbers; the pages are as above.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: as above; through a shared reference to one, nothing can be written.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> View<'a> {
    /// `len` elements of `dtype` from `start`, in memory of whoever calls, such as
    /// another allocator's.
    ///
    /// # Safety
    ///
    /// `start` must be valid for reads of `len` elements of `dtype` for as long
    /// as `'a`, during which nothing writes them; they must be initialised, and
    /// each `bool` 0 or 1. `start` need not be aligned: whoever reads or launches
    /// checks it.
    #[must_use]
    pub const unsafe fn from_raw(start: NonNull<u8>, dtype: DType, len: usize) -> Self {
        // SAFETY: promised by the caller; without pages nothing is claimed of any.
        unsafe { Self::from_parts(start, dtype, len, None) }
    }

    /// As [`from_raw`](Self::from_raw), in pages of a guarded buffer, if it is.
    ///
    /// # Safety
    ///
    /// As [`from_raw`](Self::from_raw), and the elements must lie in `pages`.
    pub(crate) const unsafe fn from_parts(
        start: NonNull<u8>,
        dtype: DType,
        len: usize,
        pages: Option<&'a Pages>,
    ) -> Self {
        View {
            start,
            dtype,
            len,
            pages,
            borrow: PhantomData,
        }
    }

    /// A slice of the caller's, where it lies. Kernels assume an alignment, of 16
    /// bytes if their signature says nothing, and a launch checks it.
    #[must_use]
    pub const fn from_slice<T: Element>(slice: &'a [T]) -> View<'a> {
        let start = NonNull::from_ref(slice).cast();
        // SAFETY: a slice of plain numbers, borrowed for as long as the view.
        unsafe { View::from_raw(start, T::DTYPE, slice.len()) }
    }

    /// A slice of the caller's, where it lies, as elements of type `bool`.
    #[must_use]
    pub const fn from_bools(slice: &'a [bool]) -> View<'a> {
        let start = NonNull::from_ref(slice).cast();
        // SAFETY: as above; Rust's `bool` is a byte, 0 or 1.
        unsafe { View::from_raw(start, DType::Bool, slice.len()) }
    }

    /// The type of its elements.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many elements it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements of `range`.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where the range leaves the view.
    pub fn slice(self, range: Range<usize>) -> Result<View<'a>, Error> {
        let (start, len) = part(self.start, self.dtype, self.len, &range)?;
        // SAFETY: a part of this view, which is borrowed for as long.
        Ok(unsafe { View::from_parts(start, self.dtype, len, self.pages) })
    }

    /// Its elements as a slice of numbers; a `bool` is a `u8`.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where `T` is not the type of its elements, or the
    /// memory is not aligned to it.
    pub fn as_slice<T: Element>(self) -> Result<&'a [T], Error> {
        check_type::<T>("cannot read the elements", self.start, self.dtype, false)?;
        // SAFETY: `len` elements that can be read for `'a`, of the size and the
        // alignment of `T`, for which every bit pattern is valid.
        Ok(unsafe { std::slice::from_raw_parts(self.start.cast::<T>().as_ptr(), self.len) })
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        // SAFETY: plain numbers have no padding, so all bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len * self.dtype.size()) }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) const fn is_guarded(&self) -> bool {
        self.pages.is_some()
    }

    /// The pages of the guarded buffer that this is a part of, if it is.
    pub(crate) const fn pages(&self) -> Option<&'a Pages> {
        self.pages
    }

    /// What was written beside the guarded buffer that this is a part of, if it is.
    pub(crate) fn stray(&self) -> Option<Stray> {
        self.pages?.stray()
    }
}

impl<'a> ViewMut<'a> {
    /// `len` elements of `dtype` from `start`, in memory of whoever calls, such as
    /// another allocator's.
    ///
    /// # Safety
    ///
    /// `start` must be valid for reads and writes of `len` elements of `dtype`
    /// for as long as `'a`, during which nothing else reads or writes them; they
    /// must be initialised, and each `bool` 0 or 1. `start` need not be aligned.
    /// A launch refuses arguments that overlap, before it uses them.
    #[must_use]
    pub const unsafe fn from_raw(start: NonNull<u8>, dtype: DType, len: usize) -> Self {
        // SAFETY: promised by the caller; without pages nothing is claimed of any.
        unsafe { Self::from_parts(start, dtype, len, None) }
    }

    /// As [`from_raw`](Self::from_raw), in pages of a guarded buffer, if it is.
    ///
    /// # Safety
    ///
    /// As [`from_raw`](Self::from_raw), and the elements must lie in `pages`.
    pub(crate) const unsafe fn from_parts(
        start: NonNull<u8>,
        dtype: DType,
        len: usize,
        pages: Option<&'a Pages>,
    ) -> Self {
        ViewMut {
            start,
            dtype,
            len,
            pages,
            borrow: PhantomData,
        }
    }

    /// A slice of the caller's, where it lies. Kernels assume an alignment, of 16
    /// bytes if their signature says nothing, and a launch checks it.
    #[must_use]
    pub const fn from_slice<T: Element>(slice: &'a mut [T]) -> ViewMut<'a> {
        let len = slice.len();
        let start = NonNull::from_mut(slice).cast();
        // SAFETY: an exclusive slice of plain numbers, borrowed for as long.
        unsafe { ViewMut::from_raw(start, T::DTYPE, len) }
    }

    /// The type of its elements.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many elements it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same elements, for reading.
    #[must_use]
    pub const fn as_view(&self) -> View<'_> {
        // SAFETY: reborrowed: while the result lives, `self` cannot write.
        unsafe { View::from_parts(self.start, self.dtype, self.len, self.pages) }
    }

    /// The same elements, for a shorter time.
    #[must_use]
    pub const fn reborrow(&mut self) -> ViewMut<'_> {
        // SAFETY: reborrowed: while the result lives, `self` cannot be used.
        unsafe { ViewMut::from_parts(self.start, self.dtype, self.len, self.pages) }
    }

    /// The elements of `range`.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where the range leaves the view.
    pub fn slice(self, range: Range<usize>) -> Result<ViewMut<'a>, Error> {
        let (start, len) = part(self.start, self.dtype, self.len, &range)?;
        // SAFETY: a part of this view, which is given up for it.
        Ok(unsafe { ViewMut::from_parts(start, self.dtype, len, self.pages) })
    }

    /// The elements before `mid` and those from `mid` on, so that a kernel can
    /// write both.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where `mid` is more than the length.
    pub fn split_at(self, mid: usize) -> Result<(ViewMut<'a>, ViewMut<'a>), Error> {
        let (first, first_len) = part(self.start, self.dtype, self.len, &(0..mid))?;
        let (second, second_len) = part(self.start, self.dtype, self.len, &(mid..self.len))?;
        // SAFETY: two parts of this view, which is given up for them, that share
        // no element.
        Ok(unsafe {
            (
                ViewMut::from_parts(first, self.dtype, first_len, self.pages),
                ViewMut::from_parts(second, self.dtype, second_len, self.pages),
            )
        })
    }

    /// Its elements as a slice of numbers that can be written.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where `T` is not the type of its elements, or these are
    /// `bool`, or the memory is not aligned to it.
    pub fn into_slice<T: Element>(self) -> Result<&'a mut [T], Error> {
        check_type::<T>("cannot write the elements", self.start, self.dtype, true)?;
        // SAFETY: `len` elements that nothing else uses for `'a`, of the size and
        // the alignment of `T`, for which every bit pattern is valid; and every
        // `T` is valid for a kernel, as `bool` is refused.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.start.cast::<T>().as_ptr(), self.len) })
    }

    /// Copies elements of the same type and number into this view. It may be of
    /// type `bool`, for which bytes are taken too if each is 0 or 1.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] where type or length differ, or a byte is no `bool`;
    /// nothing is written then.
    pub fn copy_from(&mut self, from: View<'_>) -> Result<(), Error> {
        const DOING: &str = "cannot copy elements";
        let refuse = |reason| {
            Err(Error::Buffer {
                doing: DOING,
                reason,
            })
        };
        let bytes_as_bools = self.dtype == DType::Bool && from.dtype == DType::U8;
        if self.dtype != from.dtype && !bytes_as_bools {
            return refuse(format!("they are {}, not {}", from.dtype, self.dtype));
        }
        if self.len != from.len {
            return refuse(format!("there are {} for {} places", from.len, self.len));
        }
        // Those of type `bool` are looked at all the same: a kernel wrote them.
        if self.dtype == DType::Bool
            && let Some(at) = from.as_bytes().iter().position(|&b| b > 1)
        {
            let byte = from.as_bytes()[at];
            return refuse(format!("element {at} is {byte}, and a bool is 0 or 1"));
        }
        // SAFETY: as many bytes, which are checked values of this view's type;
        // this view is exclusive, so that they cannot overlap `from`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.start.as_ptr(),
                self.start.as_ptr(),
                self.len * self.dtype.size(),
            );
        }
        Ok(())
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) const fn is_guarded(&self) -> bool {
        self.pages.is_some()
    }

    /// The pages of the guarded buffer that this is a part of, if it is.
    pub(crate) const fn pages(&self) -> Option<&'a Pages> {
        self.pages
    }

    /// What was written beside the guarded buffer that this is a part of, if it is.
    pub(crate) fn stray(&self) -> Option<Stray> {
        self.pages?.stray()
    }
}

/// Start and length of `range`, if it lies within `len` elements from `start`.
fn part(
    start: NonNull<u8>,
    dtype: DType,
    len: usize,
    range: &Range<usize>,
) -> Result<(NonNull<u8>, usize), Error> {
    if range.start > range.end || range.end > len {
        return Err(Error::Buffer {
            doing: "cannot view a part",
            reason: format!("{range:?} is not within {len} elements"),
        });
    }
    // SAFETY: at most `len` elements on, which is within or one past the memory.
    let start = unsafe { start.byte_add(range.start * dtype.size()) };
    Ok((start, range.len()))
}

fn check_type<T: Element>(
    doing: &'static str,
    start: NonNull<u8>,
    dtype: DType,
    write: bool,
) -> Result<(), Error> {
    let bool_as_byte = dtype == DType::Bool && T::DTYPE == DType::U8;
    if write && bool_as_byte {
        return Err(Error::Buffer {
            doing,
            reason: "they are bool, which must be 0 or 1; use ViewMut::copy_from".into(),
        });
    }
    if dtype != T::DTYPE && !bool_as_byte {
        return Err(Error::Buffer {
            doing,
            reason: format!("they are {dtype}, not {}", T::DTYPE),
        });
    }
    if !start.cast::<T>().is_aligned() {
        return Err(Error::Buffer {
            doing,
            reason: format!("the memory is not aligned to {dtype}"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Buffer;
    use super::*;

    #[test]
    fn a_view_stays_inside_and_keeps_its_type() {
        let mut buffer = Buffer::from_slice(&[1_i32, 2, 3, 4]).unwrap();
        let whole = 1..5;
        assert!(buffer.view(whole).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = buffer.view(3..2);
        assert!(backwards.is_err());
        assert!(buffer.as_slice::<u32>().is_err());
        let (mut left, right) = buffer.as_view_mut().split_at(1).unwrap();
        left.copy_from(right.as_view().slice(2..3).unwrap())
            .unwrap();
        assert_eq!(buffer.as_slice::<i32>().unwrap(), [4, 2, 3, 4]);
        assert!(buffer.as_view_mut().split_at(5).is_err());
    }

    #[test]
    fn a_bool_is_read_as_a_byte_and_written_checked() {
        let mut buffer = Buffer::zeroed(DType::Bool, 3).unwrap();
        assert!(buffer.as_mut_slice::<u8>().is_err());
        let mut view = buffer.as_view_mut();
        view.copy_from(View::from_bools(&[true, false, true]))
            .unwrap();
        assert!(view.copy_from(View::from_slice(&[0_u8, 2, 1])).is_err());
        assert_eq!(buffer.as_slice::<u8>().unwrap(), [1, 0, 1]);
    }

    #[test]
    fn a_slice_is_viewed_where_it_lies() {
        let mut data = [1.0_f32, 2.0];
        assert_eq!(
            View::from_slice(&data).start().as_ptr().cast_const().cast(),
            data.as_ptr()
        );
        let mut view = ViewMut::from_slice(&mut data);
        view.copy_from(View::from_slice(&[5.0_f32, 6.0])).unwrap();
        assert_eq!(data, [5.0, 6.0]);
    }
}
