//! A profile: the folder with all that one device of one account keeps.
//!
//! The folder has mode 0700 and its files 0600. `profile.toml` has a version, and a newer one is
//! refused untouched. Whoever holds the lock on the file `lock` owns the profile; the lock goes with
//! the process, so nothing is left behind by kill -9.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use common::id::{AccountName, DeviceName};
use common::key::{DeviceSecret, Fingerprint};
use common::limits::PROFILE_FILE_LEN_MAX;
use common::os::lock::FolderLock;
use common::os::private::{self, Durability};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::parse_server;
use crate::shell::ServerAddress;

/// The version of `profile.toml` that this program writes.
const VERSION: u32 = 1;
/// A profile's folder. It may not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    folder: PathBuf,
}

/// What `profile.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    version: u32,
    server: String,
    /// How the server proves itself.
    pub trust: Trust,
    /// Whose device this is; absent until the first log-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// What this device is called.
    pub device_name: DeviceName,
}

/// How the server proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// By the key in `known_servers`.
    Pinned,
    /// By a certificate that the system's roots vouch for.
    SystemRoots,
}

impl Settings {
    /// What a new profile says.
    pub(crate) fn new(
        server: &ServerAddress,
        trust: Trust,
        account: Option<AccountName>,
        device_name: DeviceName,
    ) -> Self {
        Self {
            version: VERSION,
            server: server.to_string(),
            trust,
            account,
            device_name,
        }
    }

    /// Reads what [`Settings::to_text`] or a person wrote. Looks at the version before anything else: a
    /// newer program may have other fields.
    ///
    /// # Errors
    ///
    /// If the text is from a newer program or does not hold settings.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |error: toml::de::Error| SettingsError::Damaged(error.message().to_owned());
        let Versioned { version } = toml::from_str(text).map_err(damaged)?;
        if version > VERSION {
            return Err(SettingsError::Newer(version));
        }
        let settings: Self = toml::from_str(text).map_err(damaged)?;
        match parse_server(&settings.server) {
            Ok(_) => Ok(settings),
            Err(error) => Err(SettingsError::Damaged(error.to_string())),
        }
    }

    /// The settings as they stand in `profile.toml`.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("names and numbers are always valid TOML")
    }

    /// Parses the server's address.
    pub fn server(&self) -> ServerAddress {
        parse_server(&self.server).expect("checked when the settings were read or made")
    }

    /// The account, as it stands behind 'peer login' in a text for people.
    pub(crate) fn owner(&self) -> String {
        let account = self.account.as_ref();
        account.map_or_else(|| "NAME".to_owned(), ToString::to_string)
    }
}

impl Profile {
    /// The profile in `folder`.
    pub(crate) const fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads the settings; `None` if the profile is not set up.
    pub(crate) fn settings(&self) -> Result<Option<Settings>, ProfileError> {
        let path = self.folder.join("profile.toml");
        let Some(text) = read_text(&path)? else {
            return Ok(None);
        };
        Settings::parse(&text)
            .map(Some)
            .map_err(|reason| reason.at(&path))
    }

    /// Writes the settings.
    pub(crate) fn save(&self, settings: &Settings) -> Result<(), ProfileError> {
        let text = settings.to_text();
        let head = "# A profile of the program 'peer'. Edit it only while no 'peer' runs.\n";
        self.write("profile.toml", format!("{head}{text}").as_bytes())
    }

    /// Makes the folder if it is missing, and closes it to others.
    pub(crate) fn create(&self) -> Result<(), ProfileError> {
        private::create_folder(&self.folder)
            .and_then(|()| private::close_folder_to_others(&self.folder))
            .map_err(|error| ProfileError::Write(self.folder.clone(), error))
    }

    /// This device's key, made at the first call.
    pub(crate) fn device_secret(&self) -> Result<DeviceSecret, ProfileError> {
        let path = self.folder.join("device-key");
        if let Some(text) = read_text(&path)? {
            return parse_device_secret(&text)
                .ok_or_else(|| ProfileError::Damaged(path, "it holds no key".to_owned()));
        }
        let seed = Zeroizing::new(rand::random::<[u8; 32]>());
        let secret = DeviceSecret::from_seed(*seed);
        self.write("device-key", device_secret_text(&secret).as_bytes())?;
        Ok(secret)
    }

    /// Becomes the owner, with the right to run the profile's node; `None` if another process is.
    pub(crate) fn try_own(&self) -> Result<Option<FolderLock>, ProfileError> {
        FolderLock::try_acquire(&self.folder)
            .map_err(|error| ProfileError::Write(self.folder.join("lock"), error))
    }

    /// The history's file.
    pub(crate) fn history(&self) -> PathBuf {
        self.folder.join("history.db")
    }

    /// The socket of the owning process.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The key that is trusted for a server.
    pub(crate) fn known_server(
        &self,
        server: &ServerAddress,
    ) -> Result<Option<Fingerprint>, ProfileError> {
        let name = server.to_string();
        let known = self.known_servers()?;
        Ok(known
            .into_iter()
            .find_map(|(other, fingerprint)| (other == name).then_some(fingerprint)))
    }

    /// Trusts `fingerprint`, and no other key, for a server from now on.
    pub(crate) fn trust_server(
        &self,
        server: &ServerAddress,
        fingerprint: Fingerprint,
    ) -> Result<(), ProfileError> {
        let name = server.to_string();
        let mut known = self.known_servers()?;
        known.retain(|(other, _)| *other != name);
        known.push((name, fingerprint));
        self.save_known_servers(&known)
    }

    /// Trusts no key for a server any more. Tells whether one was trusted.
    pub(crate) fn forget_server(&self, server: &ServerAddress) -> Result<bool, ProfileError> {
        let name = server.to_string();
        let mut known = self.known_servers()?;
        let before = known.len();
        known.retain(|(other, _)| *other != name);
        if known.len() == before {
            return Ok(false);
        }
        self.save_known_servers(&known)?;
        Ok(true)
    }

    fn known_servers(&self) -> Result<Vec<(String, Fingerprint)>, ProfileError> {
        let path = self.folder.join("known_servers");
        let text = read_text(&path)?.unwrap_or_default();
        parse_known_servers(&text).map_err(|line| {
            let reason = format!("line {line} is not 'HOST:PORT SHA256:…'");
            ProfileError::Damaged(path, reason)
        })
    }

    fn save_known_servers(&self, known: &[(String, Fingerprint)]) -> Result<(), ProfileError> {
        self.write("known_servers", known_servers_text(known).as_bytes())
    }

    /// Writes a file of mode 0600 that survives power loss: all of it or nothing.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ProfileError> {
        let path = self.folder.join(name);
        private::write(&path, bytes, Durability::PowerLoss)
            .map_err(|error| ProfileError::Write(path, error))
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// Made by a newer program.
    #[error("{path} has version {0}, this program knows {VERSION}", path = .1.display())]
    Newer(u32, PathBuf),
    /// A file does not hold what it should.
    #[error("{path} cannot be used: {1}", path = .0.display())]
    Damaged(PathBuf, String),
    /// A file cannot be read.
    #[error("{path} cannot be read: {1}", path = .0.display())]
    Read(PathBuf, io::Error),
    /// A file or folder cannot be written.
    #[error("{path} cannot be written: {1}", path = .0.display())]
    Write(PathBuf, io::Error),
}

/// Why a text is not the settings of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// Made by a newer program, with this version.
    Newer(u32),
    /// It does not hold what it should, for this reason.
    Damaged(String),
}

impl SettingsError {
    fn at(self, path: &Path) -> ProfileError {
        match self {
            Self::Newer(version) => ProfileError::Newer(version, path.to_owned()),
            Self::Damaged(reason) => ProfileError::Damaged(path.to_owned(), reason),
        }
    }
}

/// Reads `known_servers`: which key is trusted for which server, as `HOST:PORT SHA256:…` on lines of
/// their own, and comments on lines that start with `#`.
///
/// # Errors
///
/// The number, from 1, of the first line that is neither.
pub fn parse_known_servers(text: &str) -> Result<Vec<(String, Fingerprint)>, usize> {
    let lines = text.lines().zip(1..);
    let lines = lines.filter(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(line, number)| parse_known_server(line).ok_or(number))
        .collect()
}

/// The lines of `known_servers`.
pub fn known_servers_text(known: &[(String, Fingerprint)]) -> String {
    let lines = known
        .iter()
        .map(|(name, fingerprint)| format!("{name} {fingerprint}\n"));
    lines.collect()
}

/// Reads `device-key`: the key's 32-byte seed in base64.
pub fn parse_device_secret(text: &str) -> Option<DeviceSecret> {
    let mut seed = Zeroizing::new([0; 32]);
    let length = STANDARD_NO_PAD.decode_slice(text.trim().trim_end_matches('='), &mut *seed);
    match length {
        Ok(32) => Some(DeviceSecret::from_seed(*seed)),
        Ok(_) | Err(_) => None,
    }
}

/// The line of `device-key`.
pub fn device_secret_text(secret: &DeviceSecret) -> Zeroizing<String> {
    Zeroizing::new(STANDARD_NO_PAD.encode(secret.seed()) + "\n")
}

fn parse_known_server(line: &str) -> Option<(String, Fingerprint)> {
    let (name, fingerprint) = line.trim().split_once(' ')?;
    let server = parse_server(name).ok()?;
    Some((server.to_string(), fingerprint.trim().parse().ok()?))
}

fn read_text(path: &Path) -> Result<Option<Zeroizing<String>>, ProfileError> {
    let bytes = match private::read(path, PROFILE_FILE_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ProfileError::Read(path.to_owned(), error)),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(error) => Err(ProfileError::Damaged(path.to_owned(), error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn fresh() -> (tempfile::TempDir, Profile) {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path().join("p"));
        profile.create().unwrap();
        (folder, profile)
    }

    fn settings() -> Settings {
        Settings::new(
            &parse_server("chat.example.org").unwrap(),
            Trust::Pinned,
            Some("alice".parse().unwrap()),
            DeviceName::lossy("laptop"),
        )
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn settings_survive_their_file() {
        let (_folder, profile) = fresh();
        assert_eq!(profile.settings().unwrap(), None);
        profile.save(&settings()).unwrap();
        assert_eq!(profile.settings().unwrap(), Some(settings()));
    }

    #[test]
    fn t33_nobody_else_can_read_a_profile() {
        let (_folder, profile) = fresh();
        profile.save(&settings()).unwrap();
        profile.device_secret().unwrap();
        profile
            .trust_server(
                &settings().server(),
                "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                    .parse()
                    .unwrap(),
            )
            .unwrap();
        let _ownership = profile.try_own().unwrap().unwrap();
        assert_eq!(mode(profile.folder()), 0o700);
        for file in fs::read_dir(profile.folder()).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn a_folder_that_others_can_enter_is_closed() {
        let (_folder, profile) = fresh();
        fs::set_permissions(profile.folder(), Permissions::from_mode(0o755)).unwrap();
        profile.create().unwrap();
        assert_eq!(mode(profile.folder()), 0o700);
    }

    #[test]
    fn a_newer_version_is_refused_untouched() {
        let (_folder, profile) = fresh();
        let path = profile.folder().join("profile.toml");
        let newer = "version = 2\nfancy = true\n";
        fs::write(&path, newer).unwrap();
        assert!(matches!(profile.settings(), Err(ProfileError::Newer(2, _))));
        assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let (_folder, profile) = fresh();
        for text in [
            "",
            "version = 1",
            "version = 1\nserver = 'a b'\ntrust = 'pinned'\ndevice_name = 'x'",
            "version = 1\nserver = 'a'\ntrust = 'pinned'\ndevice_name = 'x'\nextra = 1",
        ] {
            fs::write(profile.folder().join("profile.toml"), text).unwrap();
            assert!(
                matches!(profile.settings(), Err(ProfileError::Damaged(..))),
                "{text}"
            );
        }
        fs::write(profile.folder().join("device-key"), "AAAA").unwrap();
        assert!(matches!(
            profile.device_secret(),
            Err(ProfileError::Damaged(..))
        ));
        fs::write(profile.folder().join("known_servers"), "# fine\n\nwhat").unwrap();
        let error = profile.known_server(&settings().server()).unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn the_device_key_is_made_once() {
        let (_folder, profile) = fresh();
        let first = profile.device_secret().unwrap().public();
        assert_eq!(profile.device_secret().unwrap().public(), first);
    }

    #[test]
    fn servers_are_trusted_one_key_at_a_time_and_forgotten() {
        let (_folder, profile) = fresh();
        let (here, there) = (parse_server("a").unwrap(), parse_server("a:1").unwrap());
        let key = |c: &str| {
            format!("SHA256:{}A", c.repeat(42))
                .parse::<Fingerprint>()
                .unwrap()
        };
        profile.trust_server(&here, key("A")).unwrap();
        profile.trust_server(&there, key("B")).unwrap();
        profile.trust_server(&here, key("C")).unwrap();
        assert_eq!(profile.known_server(&here).unwrap(), Some(key("C")));
        assert!(profile.forget_server(&here).unwrap());
        assert!(!profile.forget_server(&here).unwrap());
        assert_eq!(profile.known_server(&there).unwrap(), Some(key("B")));
    }

    #[test]
    fn one_at_a_time_owns_a_profile() {
        let (_folder, profile) = fresh();
        let first = profile.try_own().unwrap();
        assert!(first.is_some());
        assert!(profile.try_own().unwrap().is_none());
        drop(first);
        assert!(profile.try_own().unwrap().is_some());
    }
}
