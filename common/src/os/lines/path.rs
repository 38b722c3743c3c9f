//! Paths that are too long for a socket.
//!
//! The address of a Unix socket holds a hundred bytes, a path may have thousands. Where a path is too long
//! it is taken through a symbolic link to its folder, for as long as `bind` or `connect` takes. The link
//! has an unguessable name in a private folder of its own, so nobody else can be in its place, and the
//! socket itself is where it should be.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::limits::SOCKET_PATH_LEN_MAX;
use crate::os::private::FOLDER_MODE;

/// Where a link is made if the system's folder for such things is too deep.
const SHORT_FOLDER: &str = "/tmp";

/// A path of a socket that is short enough, while this lives.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    /// The private folder, and the link in it.
    link: Option<(PathBuf, PathBuf)>,
}

impl SocketPath {
    /// A short path to `socket`, whose folder must be there.
    ///
    /// # Errors
    ///
    /// If no link can be made where one is needed, or the path has no folder or no name.
    pub(super) fn new(socket: &Path) -> io::Result<Self> {
        if is_short(socket) {
            let path = socket.to_owned();
            return Ok(Self { path, link: None });
        }
        let name = socket.file_name().ok_or(ErrorKind::InvalidInput)?;
        let folder = socket.parent().ok_or(ErrorKind::InvalidInput)?;
        let folder = folder.canonicalize()?;
        let private = private_folder(&std::env::temp_dir(), name)
            .or_else(|_| private_folder(Path::new(SHORT_FOLDER), name))?;
        let link = private.join("f");
        if let Err(error) = symlink(&folder, &link) {
            // That it stays behind says no more than the first error.
            let _ = fs::remove_dir(&private);
            return Err(error);
        }
        Ok(Self {
            path: link.join(name),
            link: Some((private, link)),
        })
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if let Some((private, link)) = self.link.take()
            && let Err(error) = fs::remove_file(link).and_then(|()| fs::remove_dir(&private))
        {
            log::debug!("cannot remove a link to a socket: {error}");
        }
    }
}

fn is_short(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_LEN_MAX
}

/// Makes a folder that nobody could have made before, in which a path to a socket is short enough.
fn private_folder(within: &Path, socket: &std::ffi::OsStr) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let path = within.join(format!("s-{:016x}", u64::from_ne_bytes(random)));
    if !is_short(&path.join("f").join(socket)) {
        return Err(ErrorKind::InvalidFilename.into());
    }
    DirBuilder::new().mode(FOLDER_MODE).create(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_path_of_any_length_leads_to_the_socket_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().as_os_str().len() + "//socket".len();
        for len in [SOCKET_PATH_LEN_MAX, SOCKET_PATH_LEN_MAX + 1, 250] {
            let inner = folder.path().join("x".repeat(len - start));
            fs::create_dir(&inner).unwrap();
            let socket = inner.join("socket");
            assert_eq!(socket.as_os_str().len(), len);
            let bound = SocketPath::new(&socket).unwrap();
            assert_eq!(bound.link.is_some(), len > SOCKET_PATH_LEN_MAX);
            let listener = UnixListener::bind(bound.as_path()).unwrap();
            drop(bound);
            assert!(socket.exists());
            let mut client = UnixStream::connect(SocketPath::new(&socket).unwrap().as_path());
            let client = client.as_mut().unwrap();
            client.write_all(b"x").unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn a_link_is_private_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("x".repeat(120));
        fs::create_dir(&inner).unwrap();
        let path = SocketPath::new(&inner.join("socket")).unwrap();
        assert!(is_short(path.as_path()));
        let private = path.link.as_ref().unwrap().0.clone();
        let mode = fs::metadata(&private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FOLDER_MODE);
        drop(path);
        assert!(!private.exists());
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error() {
        let path = Path::new("/").join("x".repeat(120)).join("socket");
        let error = SocketPath::new(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
