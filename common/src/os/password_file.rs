//! Passwords in files: the first line of a file, or of standard input, without its end.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::private::is_open_to_others;
use crate::limits::PASSWORD_LEN_MAX;

/// What is read of a file at most: the longest password, and a character of up to four bytes, which shows
/// that it is too long, or the end of its line.
const READ_MAX: usize = PASSWORD_LEN_MAX + 4;

/// A password that was read.
#[derive(Debug)]
pub struct PasswordFile {
    /// The first line. Of one that is too long for a password, a part that is too long as well.
    pub password: Zeroizing<String>,
    /// Somebody else can read the file, too.
    pub is_open_to_others: bool,
}

/// Reads the password in a file; `-` is standard input.
///
/// # Errors
///
/// If the file cannot be read, or its first line is not UTF-8.
pub fn read(path: &Path) -> io::Result<PasswordFile> {
    if path == Path::new("-") {
        return Ok(PasswordFile {
            password: first_line(io::stdin().lock())?,
            is_open_to_others: false,
        });
    }
    let file = File::open(path)?;
    Ok(PasswordFile {
        is_open_to_others: is_open_to_others(&file.metadata()?),
        password: first_line(file)?,
    })
}

fn first_line(reader: impl Read) -> io::Result<Zeroizing<String>> {
    // One buffer that never grows, so that no copy stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_MAX + 1));
    reader.take(READ_MAX as u64).read_to_end(&mut bytes)?;
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        // The line is longer than what was read of it, which ends within a character.
        Err(error) if error.error_len().is_none() && bytes.len() == READ_MAX => {
            std::str::from_utf8(&line[..error.valid_up_to()]).expect("valid up to there")
        }
        Err(_) => return Err(io::Error::new(ErrorKind::InvalidData, "it is not UTF-8")),
    };
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        for (file, password) in [
            ("pass word", "pass word"),
            ("pass word\n", "pass word"),
            ("pass word\r\nanother\n", "pass word"),
            (" spaces stay ", " spaces stay "),
            ("\nlater", ""),
            ("", ""),
        ] {
            assert_eq!(*first_line(file.as_bytes()).unwrap(), password, "{file:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_still_too_long() {
        for letter in ["x", "ü", "漢", "🦀"] {
            for start in 0..4 {
                let long = "x".repeat(start) + &letter.repeat(5000);
                let read = first_line(long.as_bytes()).unwrap();
                assert!(long.starts_with(&*read));
                assert!(read.len() > PASSWORD_LEN_MAX && read.len() <= READ_MAX);
            }
        }
        let longest = "x".repeat(PASSWORD_LEN_MAX);
        let read = first_line(format!("{longest}\r\n").as_bytes()).unwrap();
        assert_eq!(*read, longest);
    }

    #[test]
    fn what_is_not_utf_8_is_no_password() {
        for file in [&b"\xff\n"[..], b"pass\xc3", b"\xc3\nx"] {
            let error = first_line(file).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{file:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "secret word\n").unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, true)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read(&path).unwrap();
            assert_eq!(*read.password, "secret word");
            assert_eq!(read.is_open_to_others, is_open);
        }
    }
}
