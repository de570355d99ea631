//! What stands in a tree.

use countersign_core::{Problem, Result};

/// Kind of a tree entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// `100644`.
    File,
    /// `100755`.
    Executable,
    /// `120000`.
    Symlink,
    /// `160000`.
    Submodule,
    /// `040000`.
    Folder,
}

impl EntryKind {
    /// Of a raw mode; old modes such as `100664` are files, as Git reads them.
    pub(crate) fn of(mode: i32) -> Self {
        match mode & 0o170_000 {
            0o120_000 => Self::Symlink,
            0o160_000 => Self::Submodule,
            0o040_000 => Self::Folder,
            _ if mode & 0o111 != 0 => Self::Executable,
            _ => Self::File,
        }
    }

    /// Git's mode as text.
    pub fn mode(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Submodule => "160000",
            Self::Folder => "040000",
        }
    }
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name, without the folder.
    pub name: String,
    /// Kind.
    pub kind: EntryKind,
    /// Object id.
    pub id: String,
}

/// Content of a tree entry that is not a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// Bytes of a file.
    Bytes(Vec<u8>),
    /// Target of a symbolic link.
    Link(Vec<u8>),
    /// A submodule: its content is elsewhere.
    Submodule,
    /// Larger than the limit; not read.
    TooBig,
}

/// One file at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Kind; [`EntryKind::mode`] is Git's mode.
    pub kind: EntryKind,
    /// Blob id (submodule: commit id).
    pub id: String,
    /// Size in bytes.
    pub size: u64,
    /// Content.
    pub content: FileContent,
}

impl TreeFile {
    /// Bytes, if it is an ordinary file within the limit.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            FileContent::Bytes(b) => Some(b),
            _ => None,
        }
    }

    /// Bytes of a file that may be edited.
    ///
    /// Errors: `git.symlink`, `git.submodule`, `git.too_big`, `git.lfs`.
    pub fn editable(&self, path: &str) -> Result<&[u8]> {
        let refuse = |code, what: &str| {
            Problem::new(
                code,
                format!("`{path}` is {what}, which is not edited."),
                "Edit an ordinary file, or change this one by hand.",
            )
            .never()
        };
        match &self.content {
            FileContent::Link(_) => Err(refuse("git.symlink", "a symbolic link")),
            FileContent::Submodule => Err(refuse("git.submodule", "a submodule")),
            FileContent::TooBig => {
                Err(refuse("git.too_big", "larger than the limit for files").with(format!("{} bytes", self.size)))
            }
            FileContent::Bytes(b) if is_lfs_pointer(b) => Err(refuse("git.lfs", "a Git LFS pointer")),
            FileContent::Bytes(b) => Ok(b),
        }
    }
}

/// How much is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Files in one listing.
    pub max_files: usize,
    /// Bytes of one file; a larger one is flagged, not read.
    pub max_file_bytes: u64,
    /// Bytes of all files in one listing.
    pub max_total_bytes: u64,
    /// Depth of folders.
    pub max_depth: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_files: 5_000, max_file_bytes: 1 << 20, max_total_bytes: 64 << 20, max_depth: 64 }
    }
}

/// Git's blob id (SHA-1) of these bytes, hex. SHA-1 only names content; approvals bind SHA-256.
pub fn blob_id(bytes: &[u8]) -> String {
    use sha1::Digest as _;
    let mut h = sha1::Sha1::new();
    h.update(format!("blob {}\0", bytes.len()));
    h.update(bytes);
    countersign_core::model::hex(&h.finalize())
}

/// Whether these bytes are a Git LFS pointer (git-lfs: docs/spec.md).
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.len() < 1024
        && (bytes.starts_with(b"version https://git-lfs.github.com/spec/")
            || bytes.starts_with(b"version https://hawser.github.com/spec/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_ids_are_gits() {
        assert_eq!(blob_id(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(blob_id(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn lfs_pointers_are_seen() {
        assert!(is_lfs_pointer(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n"));
        assert!(!is_lfs_pointer(b"version: 1\n"));
    }
}
