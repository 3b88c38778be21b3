//! Arrays as NumPy saves them, in the part of the format that bundles use:
//! plain numbers, little-endian, in C order.
//!
//! Source: NEP 1, "A Simple File Format for NumPy Arrays". The crates that read
//! all of the format trust a file's header with allocations and with products of
//! its numbers; these files come from anywhere.

use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Error;
use crate::memory::{Buffer, View};
use crate::signature::DType;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest header that is read, in bytes. One of an array with 32
/// dimensions, which is all that NumPy allowed for long, has some 700.
const MAX_HEADER: usize = 64 << 10;

/// What an array file says of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayHeader {
    /// Their type.
    pub dtype: DType,
    /// Their shape; empty for a single number.
    pub shape: Vec<usize>,
}

impl ArrayHeader {
    /// How many elements there are.
    fn len(&self) -> usize {
        // `open` refuses a shape whose elements cannot be counted.
        count(&self.shape).unwrap_or(0)
    }
}

/// An array of a file.
#[derive(Debug)]
pub struct Array {
    /// Its shape; empty for a single number.
    pub shape: Vec<usize>,
    /// Its elements, in C order.
    pub elements: Buffer,
}

/// Reads what an array file says of its elements, and checks that the file is
/// as long as it says.
///
/// # Errors
///
/// [`Error::System`] where the file cannot be read, [`Error::File`] where it is
/// no array file, or one of a kind that bundles do not use.
pub fn read_header(path: &Path) -> Result<ArrayHeader, Error> {
    open(path).map(|(header, _)| header)
}

/// Reads an array file.
///
/// # Errors
///
/// As [`read_header`]; and where an element of type `bool` is no 0 or 1.
pub fn read(path: &Path) -> Result<Array, Error> {
    let (header, mut file) = open(path)?;
    let mut bytes = Buffer::zeroed(DType::U8, header.len() * header.dtype.size())?;
    file.read_exact(bytes.as_mut_slice::<u8>()?)
        .map_err(|e| Error::system(format!("read {}", path.display()), e))?;
    if header.dtype == DType::Bool
        && let Some(at) = bytes.as_slice::<u8>()?.iter().position(|&b| b > 1)
    {
        return Err(Error::file(
            path,
            format!("element {at} is no bool, 0 or 1"),
        ));
    }
    Ok(Array {
        shape: header.shape,
        elements: bytes.with_dtype(header.dtype),
    })
}

/// Writes an array file, which takes the place of another in one step: a full disk leaves
/// what was there. A `bf16`, which NumPy lacks, is written as two opaque
/// bytes, `|V2`.
///
/// # Errors
///
/// [`Error::System`] where the file cannot be written, [`Error::File`] where the
/// shape is not that of so many elements.
pub fn write(path: &Path, shape: &[usize], elements: View<'_>) -> Result<(), Error> {
    if count(shape) != Some(elements.len()) {
        let reason = format!(
            "{} elements are not those of the shape {shape:?}",
            elements.len()
        );
        return Err(Error::file(path, reason));
    }
    // As NumPy writes it, so that equal arrays are equal files.
    let dimensions: Vec<_> = shape.iter().map(ToString::to_string).collect();
    let mut header = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
        descr(elements.dtype()),
        dimensions.join(", "),
        if shape.len() == 1 { "," } else { "" }
    );
    // Magic, version and length take 10 bytes; data begins at a multiple of 64.
    let end = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64);
    while MAGIC.len() + 4 + header.len() + 1 < end {
        header.push(' ');
    }
    header.push('\n');
    let result = u16::try_from(header.len())
        .map_err(|_| io::Error::other("the shape has too many dimensions"))
        .and_then(|length| {
            let folder = match path.parent() {
                Some(folder) if folder != Path::new("") => folder,
                _ => Path::new("."),
            };
            let mut file = tempfile::Builder::new()
                .prefix(".svod-array-")
                // As far as the user's mask allows, like any file.
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(folder)?;
            file.write_all(MAGIC)?;
            file.write_all(&[1, 0])?;
            file.write_all(&length.to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            file.write_all(elements.as_bytes())?;
            file.persist(path)?;
            Ok(())
        });
    result.map_err(|e| Error::system(format!("write {}", path.display()), e))
}

fn open(path: &Path) -> Result<(ArrayHeader, BufReader<File>), Error> {
    let system = |e| Error::system(format!("read {}", path.display()), e);
    let malformed = |reason: &str| Error::file(path, format!("it is no array file: {reason}"));
    // Before it is opened: opening a pipe waits for who writes it.
    let meta = std::fs::metadata(path).map_err(system)?;
    if !meta.is_file() {
        return Err(malformed("it is no file"));
    }
    let file = File::open(path).map_err(system)?;
    let mut file = BufReader::new(file);
    let mut take = |bytes: &mut [u8]| match file.read_exact(bytes) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(malformed("it ends too early")),
        other => other.map_err(system),
    };
    let mut start = [0; 8];
    take(&mut start)?;
    if &start[..6] != MAGIC {
        return Err(malformed("it does not begin as one"));
    }
    let length = match start[6] {
        1 => {
            let mut length = [0; 2];
            take(&mut length)?;
            u16::from_le_bytes(length).into()
        }
        2 | 3 => {
            let mut length = [0; 4];
            take(&mut length)?;
            u32::from_le_bytes(length) as usize
        }
        other => return Err(malformed(&format!("its version is {other}"))),
    };
    if length > MAX_HEADER {
        return Err(malformed(&format!("its header has {length} bytes")));
    }
    let data_start = start.len() as u64 + if start[6] == 1 { 2 } else { 4 } + length as u64;
    let mut header = vec![0; length];
    take(&mut header)?;
    let header = String::from_utf8(header).map_err(|_| malformed("its header is no text"))?;
    let header = parse(&header).map_err(|reason| Error::file(path, reason))?;
    let bytes = count(&header.shape)
        .and_then(|n| n.checked_mul(header.dtype.size()))
        .and_then(|n| data_start.checked_add(n as u64))
        .ok_or_else(|| malformed("its shape is too large"))?;
    if bytes != meta.len() {
        return Err(malformed(&format!(
            "it has {} bytes, and {} of shape {:?} would make {bytes}",
            meta.len(),
            header.dtype,
            header.shape
        )));
    }
    Ok((header, file))
}

/// How many elements a shape has: none, if any of its dimensions is 0.
fn count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))
}

const fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "|b1",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I16 => "<i2",
        DType::U16 => "<u2",
        DType::I32 => "<i4",
        DType::U32 => "<u4",
        DType::I64 => "<i8",
        DType::U64 => "<u8",
        DType::F16 => "<f2",
        DType::BF16 => "|V2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
    }
}

/// A header is the Python text of a dictionary with three keys.
fn parse(text: &str) -> Result<ArrayHeader, String> {
    let mut rest = Rest(text);
    let (mut dtype, mut fortran, mut shape) = (None, None, None);
    rest.expect('{')?;
    while !rest.accept('}') {
        let key = rest.string()?;
        rest.expect(':')?;
        match key {
            "descr" => dtype = Some(self::dtype(rest.string()?)?),
            "fortran_order" => fortran = Some(rest.boolean()?),
            "shape" => shape = Some(rest.shape()?),
            other => return Err(format!("its header has an unknown key `{other}`")),
        }
        if !rest.accept(',') {
            rest.expect('}')?;
            break;
        }
    }
    let (Some(dtype), Some(fortran), Some(shape)) = (dtype, fortran, shape) else {
        return Err("its header lacks one of `descr`, `fortran_order`, `shape`".into());
    };
    if fortran && shape.len() > 1 {
        return Err("its elements are in Fortran order; save numpy.ascontiguousarray of it".into());
    }
    Ok(ArrayHeader { dtype, shape })
}

fn dtype(text: &str) -> Result<DType, String> {
    // A byte has no order, and `=` is that of the machine that wrote it.
    let plain = text.strip_prefix(['<', '|', '=']).unwrap_or(text);
    let found = DType::ALL.into_iter().find(|d| descr(*d)[1..] == *plain);
    match found {
        Some(dtype) => Ok(dtype),
        None if text.starts_with('>') => Err(format!(
            "its elements are big-endian (`{text}`); save numpy's a.astype(a.dtype.newbyteorder('<'))"
        )),
        None => Err(format!("its elements are `{text}`, which no buffer holds")),
    }
}

/// The text that is left to read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn accept(&mut self, c: char) -> bool {
        let rest = self.0.trim_start();
        match rest.strip_prefix(c) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.accept(c) {
            Ok(())
        } else {
            Err(format!("its header has no `{c}` where one belongs"))
        }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.accept('"') {
            '"'
        } else {
            self.expect('\'')?;
            '\''
        };
        let (string, rest) = self
            .0
            .split_once(quote)
            .ok_or("its header has a string without an end")?;
        self.0 = rest;
        Ok(string)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        let rest = self.0.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = rest.strip_prefix(word) {
                self.0 = rest;
                return Ok(value);
            }
        }
        Err("its header's `fortran_order` is neither True nor False".into())
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        let mut shape = Vec::new();
        self.expect('(')?;
        while !self.accept(')') {
            let rest = self.0.trim_start();
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let dimension = rest[..end]
                .parse()
                .map_err(|_| "its header's `shape` holds no number that memory could count")?;
            shape.push(dimension);
            self.0 = rest[end..].strip_prefix('L').unwrap_or(&rest[end..]);
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for dtype in DType::ALL {
            for shape in [
                vec![],
                vec![0],
                vec![5],
                vec![2, 3],
                vec![1 << 40, 1 << 40, 0],
            ] {
                let buffer = Buffer::zeroed(dtype, count(&shape).unwrap()).unwrap();
                write(&path, &shape, buffer.as_view()).unwrap();
                let array = read(&path).unwrap();
                assert_eq!((array.shape, array.elements.dtype()), (shape, dtype));
            }
        }
    }

    #[test]
    fn a_shape_of_other_elements_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let three = View::from_slice(&[1.0_f32, 2.0, 3.0]);
        assert!(write(&path, &[2, 2], three).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn headers_of_other_writers_are_read() {
        let header = |text| parse(text).map(|h| (h.dtype, h.shape));
        assert_eq!(
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 784), }   \n"),
            Ok((DType::F32, vec![1, 784]))
        );
        assert_eq!(
            header("{\"shape\":(3L,),\"fortran_order\":True,\"descr\":\"|b1\"}"),
            Ok((DType::Bool, vec![3]))
        );
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let error = |descr, fortran, shape| {
            let text =
                format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}");
            parse(&text).unwrap_err()
        };
        assert!(error("'>f4'", "False", "(2,)").contains("big-endian"));
        assert!(error("'<c8'", "False", "(2,)").contains("no buffer holds"));
        assert!(error("'<f4'", "True", "(2, 2)").contains("Fortran"));
        assert!(error("'<f4'", "maybe", "(2,)").contains("neither"));
        assert!(error("'<f4'", "False", "(-1,)").contains("no number"));
        assert!(error("'<f4'", "False", "(99999999999999999999,)").contains("no number"));
        assert!(error("[('x', '<f4')]", "False", "(2,)").contains("belongs"));
    }

    #[test]
    fn a_file_that_lies_about_its_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let ones = Buffer::from_slice(&[1.0_f32; 6]).unwrap();
        write(&path, &[2, 3], ones.as_view()).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut longer = good.clone();
        longer.push(0);
        let huge = String::from_utf8_lossy(&good[10..]).into_owned();
        let huge = huge.replace("(2, 3)", "(4294967296, 4294967296)");
        let mut lies = good[..10].to_vec();
        lies.extend(huge.as_bytes());
        for bytes in [&good[..good.len() - 1], &longer, &good[..7], b"", &lies] {
            std::fs::write(&path, bytes).unwrap();
            assert!(read(&path).is_err());
        }
        assert!(read(dir.path()).is_err());
    }
}
