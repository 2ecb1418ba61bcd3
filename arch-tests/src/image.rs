//! What an executable file says of itself (ELF, generic ABI chapters 4 and 5), for either byte order and word size.

use std::fmt;
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::abi::{DT_NEEDED, PT_INTERP, SHT_SYMTAB};
use elf::endian::AnyEndian;
use elf::file::Class;

/// What the tests ask of a binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `e_machine`.
    pub machine: u16,
    /// Bits of a word.
    pub bits: u32,
    /// Byte order.
    pub little_endian: bool,
    /// It asks for an interpreter (a dynamic linker).
    pub has_interpreter: bool,
    /// Shared libraries that it needs.
    pub n_libraries: usize,
    /// It still has its symbols.
    pub has_symbols: bool,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why a file is no executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for ImageError {}

impl Image {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Image, ImageError> {
        let wrong = |why: String| ImageError { path: path.into(), why };
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Image::of(&bytes).map_err(wrong)
    }

    fn of(bytes: &[u8]) -> Result<Image, String> {
        let file = ElfBytes::<AnyEndian>::minimal_parse(bytes).map_err(|error| error.to_string())?;
        let segments = file.segments().ok_or("it has no segments")?;
        let needed = match file.dynamic().map_err(|error| error.to_string())? {
            Some(entries) => entries.iter().filter(|entry| entry.d_tag == DT_NEEDED).count(),
            None => 0,
        };
        let sections = file.section_headers();
        Ok(Image {
            machine: file.ehdr.e_machine,
            bits: if file.ehdr.class == Class::ELF64 { 64 } else { 32 },
            little_endian: file.ehdr.endianness == AnyEndian::Little,
            has_interpreter: segments.iter().any(|segment| segment.p_type == PT_INTERP),
            n_libraries: needed,
            has_symbols: sections.is_some_and(|all| all.iter().any(|section| section.sh_type == SHT_SYMTAB)),
            bytes: bytes.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_host_is_told_from_ours() {
        let shell = Image::read(Path::new("/bin/sh")).unwrap();
        assert!(shell.has_interpreter && shell.n_libraries > 0);
    }

    #[test]
    fn what_is_no_executable_is_named() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/targets.toml"));
        let error = Image::read(path).unwrap_err().to_string();
        assert!(error.contains("targets.toml: "), "{error}");
    }
}
