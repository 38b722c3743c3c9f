//! The data folder: who may use it, the server's keys, and the database.
//!
//! Everything in it is for its owner only (0700, 0600). A lock makes sure that one process at a time
//! has it; the lock goes with the process, however that ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::key::Fingerprint;
use common::limits::SERVER_FILE_LEN_MAX;
use common::os::lock::FolderLock;
use common::os::private::{self, Durability};
use common::password::ServerSetup;
use common::tls::{IdentityError, ServerIdentity};
use zeroize::Zeroizing;

use super::{Failure, ambient};
use crate::server::logins::lockout::BucketKey;
use crate::store::sqlite::{OpenError, SqliteStore};

const IDENTITY: &str = "identity.pem";
const OPAQUE_SETUP: &str = "opaque-setup";
const BUCKET_KEY: &str = "bucket-key";
const DATABASE: &str = "rendezvous.db";

/// A data folder that this process alone has.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    _lock: FolderLock,
}

impl DataFolder {
    /// Makes the folder if it is not there, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failure = |what| {
            move |why| Failure::File {
                what,
                path: path.to_owned(),
                why,
            }
        };
        private::create_folder(path).map_err(failure("cannot make the data folder"))?;
        let lock = FolderLock::try_acquire(path)
            .map_err(failure("cannot lock the data folder"))?
            .ok_or_else(|| Failure::InUse(path.to_owned()))?;
        warn_if_readable_by_others(path);
        let this = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        if this.is_new() {
            this.make_identity()?;
        }
        Ok(this)
    }

    /// The same for a folder that somebody has served from or made an account in: nothing is made.
    pub(super) fn open_existing(path: &Path) -> Result<Self, Failure> {
        let is_there = path.join(DATABASE).try_exists();
        match is_there {
            Ok(true) => Self::open(path),
            Ok(false) => Err(Failure::NoServer(path.to_owned())),
            Err(why) => Err(Failure::File {
                what: "cannot look into the data folder",
                path: path.to_owned(),
                why,
            }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The server's identity, made with the folder. It must be there: peers know the server by it.
    pub(super) fn identity(&self) -> Result<ServerIdentity, Failure> {
        let path = self.path.join(IDENTITY);
        if !path.exists() {
            return Err(Failure::Damaged {
                path,
                why: "it is missing, and without it no peer knows this server any more".to_owned(),
            });
        }
        let pem = read(&path)?;
        ServerIdentity::from_pem(&pem).map_err(|error| Failure::Damaged {
            path,
            why: error.to_string(),
        })
    }

    /// The server's OPAQUE keys, made at the first start. Where there are accounts already they must
    /// be there: with new ones nobody could log in any more.
    pub(super) fn opaque_setup(&self) -> Result<ServerSetup, Failure> {
        let path = self.path.join(OPAQUE_SETUP);
        let has_accounts = self.path.join(DATABASE).exists();
        if has_accounts && !path.exists() {
            return Err(Failure::Damaged {
                path,
                why: "it is missing, and without it no account can log in".to_owned(),
            });
        }
        let bytes = read_or_make(&path, || {
            Ok(ServerSetup::generate(ambient::seed()?).to_bytes())
        })?;
        parse_setup(&path, &bytes)
    }

    /// The key of the counters of unknown names, made at the first start.
    pub(super) fn bucket_key(&self) -> Result<BucketKey, Failure> {
        let path = self.path.join(BUCKET_KEY);
        let bytes = read_or_make(&path, || Ok(Zeroizing::new(ambient::seed()?.to_vec())))?;
        match bytes.as_slice().try_into() {
            Ok(key) => Ok(BucketKey(key)),
            Err(_) => Err(Failure::Damaged {
                path,
                why: "it does not have 32 bytes".to_owned(),
            }),
        }
    }

    /// Tells whether nothing in the folder needs the identity that it does not have.
    fn is_new(&self) -> bool {
        [IDENTITY, OPAQUE_SETUP, DATABASE]
            .iter()
            .all(|name| !self.path.join(name).exists())
    }

    fn make_identity(&self) -> Result<(), Failure> {
        let make = || {
            Ok(Zeroizing::new(
                ServerIdentity::generate_pem().as_bytes().to_vec(),
            ))
        };
        read_or_make(&self.path.join(IDENTITY), make).map(drop)
    }

    /// The database, made at the first start.
    pub(super) fn store(&self) -> Result<SqliteStore, Failure> {
        let path = self.path.join(DATABASE);
        SqliteStore::open(&path).map_err(|error| match error {
            OpenError::Newer { .. } => Failure::Newer {
                path,
                why: error.to_string(),
            },
            OpenError::Damaged(why) => Failure::Damaged { path, why },
            OpenError::Io(why) => Failure::File {
                what: "cannot open the database",
                path,
                why,
            },
            OpenError::Sqlite(why) => Failure::File {
                what: "cannot use the database",
                path,
                why: io::Error::other(why),
            },
        })
    }
}

/// Reads the identity of a data folder, or an operator's own certificate, without locking anything.
pub(super) fn read_identity(
    folder: &Path,
    certificate: Option<&Path>,
) -> Result<ServerIdentity, Failure> {
    let own = folder.join(IDENTITY);
    let path = certificate.unwrap_or(&own);
    let pem = private::read(path, SERVER_FILE_LEN_MAX).map_err(|why| {
        let path = path.to_owned();
        match certificate {
            Some(_) => Failure::CertificateFile { path, why },
            None => unreadable(path, why),
        }
    })?;
    ServerIdentity::from_pem(&pem).map_err(|error| certificate_problem(path, &error))
}

/// The fingerprint that peers pin.
pub(super) fn fingerprint(identity: &ServerIdentity) -> Result<Fingerprint, Failure> {
    let path = Path::new(IDENTITY);
    identity
        .fingerprint()
        .map_err(|error| certificate_problem(path, &error))
}

/// Reads the OPAQUE keys of a folder that a running server has locked.
pub(super) fn read_opaque_setup(folder: &Path) -> Result<ServerSetup, Failure> {
    let path = folder.join(OPAQUE_SETUP);
    parse_setup(&path, &read(&path)?)
}

pub(super) fn certificate_problem(path: &Path, error: &IdentityError) -> Failure {
    Failure::Certificate {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

const fn unreadable(path: PathBuf, why: io::Error) -> Failure {
    Failure::File {
        what: "cannot read",
        path,
        why,
    }
}

/// Reads a file that holds a secret.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    private::read(path, SERVER_FILE_LEN_MAX).map_err(|why| unreadable(path.to_owned(), why))
}

fn parse_setup(path: &Path, bytes: &[u8]) -> Result<ServerSetup, Failure> {
    ServerSetup::from_bytes(bytes).map_err(|_| Failure::Damaged {
        path: path.to_owned(),
        why: "it does not hold the server's OPAQUE keys".to_owned(),
    })
}

/// Reads a secret, or makes it: complete and durable, or not at all.
fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, Failure>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if path.exists() {
        return read(path);
    }
    let bytes = make()?;
    private::write(path, &bytes, Durability::PowerLoss).map_err(|why| Failure::File {
        what: "cannot write",
        path: path.to_owned(),
        why,
    })?;
    Ok(bytes)
}

/// A folder that was there before may be open to others; that is their owner's decision, but not one
/// to take unawares.
fn warn_if_readable_by_others(path: &Path) {
    if fs::metadata(path).is_ok_and(|about| private::is_open_to_others(&about)) {
        log::warn!("other users can look into the data folder; 'chmod 700' closes it");
    }
}
