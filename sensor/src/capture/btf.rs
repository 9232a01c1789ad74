//! A reader for the running kernel's type information (BTF).
//!
//! aya keeps the members of its own BTF types private, so this is a reader of our own: one pass over the types, then
//! look-ups by name. Format: Documentation/bpf/btf.rst. Dropped after start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where the kernel shows its own types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Type information that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error(
        "cannot read the kernel's type information at {path}: {source}; Bartizan needs a kernel with CONFIG_DEBUG_INFO_BTF=y (every current distribution kernel has it) and /sys mounted"
    )]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not BTF.
    #[error("{path} is not valid BTF at byte {offset}: {what}")]
    Damaged {
        /// File.
        path: PathBuf,
        /// Offset in the file.
        offset: usize,
        /// What was expected there.
        what: &'static str,
    },
}

/// The types of one kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Offset of each type's descriptor; index is the type id.
    types: Vec<usize>,
    structs: HashMap<String, Vec<u32>>,
    typedefs: HashMap<String, u32>,
    functions: HashMap<String, u32>,
    enumerators: HashMap<String, i64>,
}

impl Btf {
    /// Reads the BTF file at `path`.
    ///
    /// # Errors
    /// [`BtfError`] when it cannot be read or is not BTF.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let bytes = std::fs::read(path).map_err(|source| BtfError::Read { path: path.to_owned(), source })?;
        Self::parse(bytes).map_err(|(offset, what)| BtfError::Damaged { path: path.to_owned(), offset, what })
    }

    /// Reads BTF bytes.
    ///
    /// # Errors
    /// Offset and expectation where the bytes are not BTF.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, (usize, &'static str)> {
        let word = |offset: usize| word(&bytes, offset).ok_or((offset, "a 32-bit word"));
        if bytes.get(..2) != Some(&MAGIC.to_le_bytes()) {
            return Err((0, "the magic 0xeb9f, little-endian"));
        }
        let header = word(4)? as usize;
        let at = |offset: u32| header.checked_add(offset as usize).ok_or((8, "sections inside the file"));
        let (types_at, types_len, strings) = (at(word(8)?)?, word(12)? as usize, at(word(16)?)?);
        let types_end = types_at.checked_add(types_len).filter(|end| *end <= bytes.len()).ok_or((12, "types inside the file"))?;
        let mut this = Self {
            strings,
            types: vec![0],
            structs: HashMap::new(),
            typedefs: HashMap::new(),
            functions: HashMap::new(),
            enumerators: HashMap::new(),
            bytes: Vec::new(),
        };
        let mut offset = types_at;
        while offset < types_end {
            let id = this.types.len() as u32;
            let (name, info) = (word(offset)?, word(offset + 4)?);
            let (kind, len) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let name = || string(&bytes, strings, name).unwrap_or_default().to_owned();
            let extra = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION => {
                    this.structs.entry(name()).or_default().push(id);
                    len * 12
                }
                KIND_ENUM => {
                    for index in 0..len {
                        let at = offset + 12 + index * 8;
                        let label = string(&bytes, strings, word(at)?).unwrap_or_default().to_owned();
                        this.enumerators.insert(label, i64::from(word(at + 4)? as i32));
                    }
                    len * 8
                }
                KIND_ENUM64 => {
                    for index in 0..len {
                        let at = offset + 12 + index * 12;
                        let label = string(&bytes, strings, word(at)?).unwrap_or_default().to_owned();
                        this.enumerators.insert(label, i64::from(word(at + 4)?) | (i64::from(word(at + 8)?) << 32));
                    }
                    len * 12
                }
                KIND_FUNC_PROTO => len * 8,
                KIND_DATASEC => len * 12,
                KIND_FUNC => {
                    this.functions.insert(name(), id);
                    0
                }
                KIND_TYPEDEF => {
                    this.typedefs.insert(name(), id);
                    0
                }
                KIND_PTR | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG | KIND_FWD | KIND_FLOAT => 0,
                _ => return Err((offset, "a type of a known kind (this kernel's BTF is newer than this binary)")),
            };
            this.types.push(offset);
            offset += 12 + extra;
        }
        this.bytes = bytes;
        Ok(this)
    }

    /// Byte offset of `member` in the structure `structure`. Dots descend; anonymous members are searched by themselves.
    /// Where several structures share the name, the first that has the member counts.
    pub fn member(&self, structure: &str, member: &str) -> Option<u32> {
        self.structs.get(structure)?.iter().find_map(|id| self.path(*id, member))
    }

    /// Size of a structure in bytes.
    pub fn size(&self, structure: &str) -> Option<u32> {
        let id = self.structs.get(structure)?.first()?;
        word(&self.bytes, *self.types.get(*id as usize)? + 8)
    }

    /// Value of an enumerator.
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        self.enumerators.get(name).copied()
    }

    /// Whether the kernel has a function of this name to attach to.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Parameters of a function as text, such as `struct sock *, int`.
    pub fn function_parameters(&self, name: &str) -> Option<Vec<String>> {
        let (_, _, proto) = self.descriptor(*self.functions.get(name)?)?;
        self.parameters(proto)
    }

    /// Arguments of a tracepoint as text, without the leading data pointer.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<Vec<String>> {
        let (_, _, pointer) = self.descriptor(*self.typedefs.get(&format!("btf_trace_{name}"))?)?;
        let (_, _, proto) = self.descriptor(pointer)?;
        let mut parameters = self.parameters(proto)?;
        (!parameters.is_empty()).then(|| parameters.split_off(1))
    }

    fn parameters(&self, proto: u32) -> Option<Vec<String>> {
        let (offset, info, _) = self.descriptor(proto)?;
        if (info >> 24) & 0x1f != KIND_FUNC_PROTO {
            return None;
        }
        (0..(info & 0xffff) as usize).map(|index| self.describe(word(&self.bytes, offset + 12 + index * 8 + 4)?, 0)).collect()
    }

    /// A type in C's words, qualifiers left out.
    fn describe(&self, id: u32, depth: u32) -> Option<String> {
        if depth > 8 {
            return None;
        }
        if id == 0 {
            return Some("void".to_owned());
        }
        let (offset, info, target) = self.descriptor(id)?;
        let name = string(&self.bytes, self.strings, word(&self.bytes, offset)?)?;
        match (info >> 24) & 0x1f {
            KIND_PTR => Some(format!("{} *", self.describe(target, depth + 1)?)),
            KIND_CONST | KIND_VOLATILE | KIND_RESTRICT | KIND_TYPE_TAG => self.describe(target, depth + 1),
            KIND_STRUCT | KIND_FWD => Some(format!("struct {name}")),
            KIND_UNION => Some(format!("union {name}")),
            KIND_ENUM | KIND_ENUM64 => Some(format!("enum {name}")),
            _ => Some(name.to_owned()),
        }
    }

    /// Offset, info word and size-or-type word of a type.
    fn descriptor(&self, id: u32) -> Option<(usize, u32, u32)> {
        let offset = *self.types.get(id as usize).filter(|offset| **offset != 0)?;
        Some((offset, word(&self.bytes, offset + 4)?, word(&self.bytes, offset + 8)?))
    }

    fn path(&self, structure: u32, path: &str) -> Option<u32> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let (offset, member_type) = self.direct(structure, first, 0)?;
        match rest {
            None => Some(offset),
            Some(rest) => Some(offset + self.path(self.strip(member_type)?, rest)?),
        }
    }

    /// Offset and type of a direct member, or of one of an anonymous member.
    fn direct(&self, structure: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > 8 {
            return None;
        }
        let (offset, info, _) = self.descriptor(structure)?;
        if !matches!((info >> 24) & 0x1f, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let bitfields = info >> 31 == 1;
        (0..(info & 0xffff) as usize).find_map(|index| {
            let at = offset + 12 + index * 12;
            let member = string(&self.bytes, self.strings, word(&self.bytes, at)?)?;
            let member_type = word(&self.bytes, at + 4)?;
            let bits = word(&self.bytes, at + 8)?;
            if bitfields && bits >> 24 != 0 {
                return None;
            }
            let byte = (bits & if bitfields { 0xff_ffff } else { u32::MAX }) / 8;
            if member == name {
                Some((byte, member_type))
            } else if member.is_empty() {
                let (inner, inner_type) = self.direct(self.strip(member_type)?, name, depth + 1)?;
                Some((byte + inner, inner_type))
            } else {
                None
            }
        })
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, id: u32) -> Option<u32> {
        let mut id = id;
        for _ in 0..16 {
            let (_, info, target) = self.descriptor(id)?;
            match (info >> 24) & 0x1f {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => id = target,
                _ => return Some(id),
            }
        }
        None
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

fn string(bytes: &[u8], strings: usize, offset: u32) -> Option<&str> {
    let tail = bytes.get(strings.checked_add(offset as usize)?..)?;
    let end = tail.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&tail[..end]).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct inner { int a; int b; }; struct outer { long x; union { int y; int z; }; struct inner in; }; enum { RED = 3 };`
    fn sample() -> Vec<u8> {
        let mut strings = vec![0_u8];
        let mut name = |text: &str| {
            let at = strings.len() as u32;
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let mut types: Vec<u32> = Vec::new();
        let kind = |kind: u32, len: u32| (kind << 24) | len;
        types.extend([name("int"), kind(KIND_INT, 0), 4, 32]);
        types.extend([name("long"), kind(KIND_INT, 0), 8, 64]);
        types.extend([name("inner"), kind(KIND_STRUCT, 2), 8, name("a"), 1, 0, name("b"), 1, 32]);
        types.extend([0, kind(KIND_UNION, 2), 4, name("y"), 1, 0, name("z"), 1, 0]);
        types.extend([name("outer"), kind(KIND_STRUCT, 3), 24, name("x"), 2, 0, 0, 4, 64, name("in"), 3, 128]);
        types.extend([name("colour"), kind(KIND_ENUM, 1), 4, name("RED"), 3]);
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&[1, 0]);
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_through_names_dots_and_anonymous_unions() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.member("outer", "x"), Some(0));
        assert_eq!(btf.member("outer", "z"), Some(8));
        assert_eq!(btf.member("outer", "in.b"), Some(20));
        assert_eq!(btf.member("outer", "nothing"), None);
        assert_eq!(btf.size("outer"), Some(24));
        assert_eq!(btf.enumerator("RED"), Some(3));
    }

    #[test]
    fn the_running_kernel_is_read() {
        let btf = Btf::read(Path::new(VMLINUX)).unwrap();
        assert!(btf.member("task_struct", "tgid").is_some());
        assert_eq!(btf.tracepoint_arguments("inet_sock_set_state").unwrap(), ["struct sock *", "int", "int"]);
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(cut in 0_usize..400, flips in proptest::collection::vec((0_usize..400, any::<u8>()), 0..8)) {
            let mut bytes = sample();
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            }
            bytes.truncate(cut.max(1));
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = (btf.member("outer", "in.b"), btf.size("inner"), btf.function_parameters("f"), btf.tracepoint_arguments("t"));
            }
        }
    }
}
