//! The weights file: tensors by name, mapped where a kernel may read them in place.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::Error;
use crate::signature::DType;

/// A weights file of which the header was read.
#[derive(Debug)]
pub(super) struct Weights {
    path: PathBuf,
    length: u64,
    header: Metadata,
    /// Where the header ends, in bytes.
    data_start: usize,
    tensors: HashMap<String, Tensor>,
}

/// Where a tensor's bytes lie in the file, and what they are.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) range: Range<usize>,
    /// `None` for types that no buffer has, such as the 8-bit floats.
    pub(super) dtype: Option<DType>,
}

/// The longest header of a weights file, in bytes; safetensors' own limit.
const MAX_HEADER: u64 = 100_000_000;

impl Weights {
    /// Reads the header. The data is not looked at, only how much there is.
    pub(super) fn open(path: PathBuf) -> Result<Weights, Error> {
        let system = |e| Error::system(format!("read {}", path.display()), e);
        let malformed =
            |reason: String| Error::file(&path, format!("it is no safetensors file: {reason}"));
        let mut file = File::open(&path).map_err(system)?;
        let length = file.metadata().map_err(system)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| malformed("it ends too early".into()))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length.saturating_sub(8) {
            return Err(malformed(format!(
                "its header would have {size} bytes, the file has {length}"
            )));
        }
        let data_start = 8 + usize::try_from(size).map_err(|e| malformed(e.to_string()))?;
        let mut header = vec![0; data_start - 8];
        file.read_exact(&mut header).map_err(system)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| malformed(e.to_string()))?;

        let data_length = length.saturating_sub(data_start as u64);
        let mut tensors = HashMap::new();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let elements = info
                .shape
                .iter()
                .try_fold(1_usize, |n, d| n.checked_mul(*d));
            let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
            if start > end || end as u64 > data_length {
                return Err(malformed(format!("the tensor `{name}` leaves the file")));
            }
            if bits.map(|b| b.div_ceil(8)) != Some(end - start) {
                return Err(malformed(format!(
                    "the tensor `{name}` has {} bytes, not those of its shape",
                    end - start
                )));
            }
            let tensor = Tensor {
                name: name.clone(),
                range: data_start + start..data_start + end,
                dtype: DType::ALL.into_iter().find(|d| stored(*d) == info.dtype),
            };
            tensors.insert(name, tensor);
        }
        if metadata.data_len() as u64 != data_length {
            return Err(malformed(format!(
                "its tensors have {} bytes, the file has {data_length} for them",
                metadata.data_len()
            )));
        }
        Ok(Weights {
            path,
            length,
            header: metadata,
            data_start,
            tensors,
        })
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Maps the file.
    ///
    /// # Safety
    ///
    /// Nobody may write the file while the mapping lives.
    pub(super) unsafe fn map(&self) -> Result<Arc<Mmap>, Error> {
        let system = |e| Error::system(format!("map {}", self.path.display()), e);
        let file = File::open(&self.path).map_err(system)?;
        // SAFETY: promised by the caller.
        let map = unsafe { Mmap::map(&file) }.map_err(system)?;
        self.check_length(map.len() as u64)?;
        Ok(Arc::new(map))
    }

    fn check_length(&self, length: u64) -> Result<(), Error> {
        if length == self.length {
            return Ok(());
        }
        Err(Error::file(
            &self.path,
            format!(
                "it has changed since it was checked, from {} to {length} bytes",
                self.length
            ),
        ))
    }

    /// Copies a part of the file.
    fn copy(&self, start: u64, length: u64, to: &mut impl Write) -> Result<(), Error> {
        let system = |e| Error::system(format!("copy from {}", self.path.display()), e);
        let mut file = File::open(&self.path).map_err(system)?;
        self.check_length(file.metadata().map_err(system)?.len())?;
        file.seek(SeekFrom::Start(start)).map_err(system)?;
        let copied = io::copy(&mut file.take(length), to).map_err(system)?;
        if copied == length {
            return Ok(());
        }
        Err(Error::file(
            &self.path,
            "it has become shorter while it was copied",
        ))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// How safetensors names an element type.
const fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::Bool => Dtype::BOOL,
        DType::U8 => Dtype::U8,
        DType::I8 => Dtype::I8,
        DType::I16 => Dtype::I16,
        DType::U16 => Dtype::U16,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::I64 => Dtype::I64,
        DType::U64 => Dtype::U64,
    }
}

/// Tensors to be written, and where their bytes are.
#[derive(Default)]
pub(super) struct NewWeights<'a> {
    /// What the header says beside them.
    notes: Option<HashMap<String, String>>,
    tensors: Vec<(String, TensorInfo, Bytes<'a>)>,
}

#[derive(Clone, Copy)]
enum Bytes<'a> {
    Memory(&'a [u8]),
    /// From this offset in a weights file.
    File(&'a Weights, u64),
}

impl<'a> NewWeights<'a> {
    /// Adds a tensor. `shape` has the bytes of `bytes`.
    pub(super) fn add(&mut self, name: String, dtype: DType, shape: &[usize], bytes: &'a [u8]) {
        let info = TensorInfo {
            dtype: stored(dtype),
            // Of no bytes, whatever the other dimensions; safetensors multiplies them.
            shape: if bytes.is_empty() {
                vec![0]
            } else {
                shape.to_vec()
            },
            data_offsets: (0, bytes.len()),
        };
        self.tensors.push((name, info, Bytes::Memory(bytes)));
    }

    /// All that a weights file holds.
    pub(super) fn of(weights: &'a Weights) -> NewWeights<'a> {
        let info = |name: String| {
            let info = weights.header.info(&name)?.clone();
            let start = weights.data_start + info.data_offsets.0;
            Some((name, info, Bytes::File(weights, start as u64)))
        };
        NewWeights {
            notes: weights.header.metadata().clone(),
            tensors: weights
                .header
                .offset_keys()
                .into_iter()
                .filter_map(info)
                .collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Writes the file, one tensor after another.
    ///
    /// Data begins at a multiple of 64, and a tensor at the largest power of two, up to
    /// 64, that divides its size, since those with larger ones come first. The crate's
    /// own writer orders tensors by type and promises 8 bytes, so that only the header
    /// is its.
    pub(super) fn write(mut self, path: &Path) -> Result<(), Error> {
        let size = |info: &TensorInfo| info.data_offsets.1 - info.data_offsets.0;
        self.tensors
            .sort_by_key(|(_, info, _)| Reverse(size(info).trailing_zeros().min(6)));
        let (mut infos, mut parts, mut end) = (Vec::new(), Vec::new(), 0_usize);
        for (name, mut info, bytes) in self.tensors {
            let size = size(&info);
            let start = end;
            end = start
                .checked_add(size)
                .ok_or_else(|| Error::file(path, "its tensors are too many bytes to count"))?;
            info.data_offsets = (start, end);
            infos.push((name, info));
            parts.push((bytes, size));
        }
        let header = Metadata::new(self.notes, infos)
            .map_err(|e| e.to_string())
            // Through a value, whose keys are sorted: equal weights are equal files.
            .and_then(|header| serde_json::to_value(header).map_err(|e| e.to_string()))
            .map_err(|e| Error::file(path, e))?;
        let mut header = header.to_string();
        let padded = (8 + header.len()).next_multiple_of(64) - 8;
        header.extend(std::iter::repeat_n(' ', padded - header.len()));
        let length = header.len() as u64;
        if length > MAX_HEADER {
            let reason = format!("its header has {length} bytes, at most {MAX_HEADER} are read");
            return Err(Error::file(path, reason));
        }

        let system = |e| Error::system(format!("write {}", path.display()), e);
        let mut file = BufWriter::new(File::create(path).map_err(system)?);
        file.write_all(&length.to_le_bytes()).map_err(system)?;
        file.write_all(header.as_bytes()).map_err(system)?;
        for (bytes, size) in parts {
            match bytes {
                Bytes::Memory(bytes) => file.write_all(bytes).map_err(system)?,
                Bytes::File(weights, start) => weights.copy(start, size as u64, &mut file)?,
            }
        }
        file.flush().map_err(system)
    }
}
