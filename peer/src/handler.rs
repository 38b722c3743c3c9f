//! A program of the person's that messages are handed over to, one at a time.
//!
//! It is executed directly, without a shell and without arguments. It gets a line on its standard input, and the
//! profile in `PEER_PROFILE`, so that a `peer` that it runs is of the same one. What it prints goes to the standard
//! error of this program. It has a process group of its own: Ctrl-C does not reach it, and what it has started ends
//! with it when it is ended.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::os::clock::now;
use rustix::fs::{Access, OFlags};
use rustix::process::{Pid, Signal};

use crate::client::Notifier;
use crate::config::shown_path;
use crate::ended::Ended;
use crate::failure::{Exit, Failure};

/// How long to wait before looking again whether it has ended, at first, and at most: that doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// The program, which can be executed.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    path: PathBuf,
    /// The folder of the profile.
    profile: PathBuf,
    time_max: Duration,
}

impl Handler {
    /// Looks whether the program can be executed; it is for `profile`, a folder.
    pub(crate) fn check(path: &Path, profile: &Path, time_max: Duration) -> Result<Self, Failure> {
        let shown = shown_path(path);
        let failure = |why: &dyn fmt::Display, next: &str| {
            let what = format!("could not use {shown} for --on-message");
            Failure::new(Exit::File, what).because(why).next(next)
        };
        let give = "give the path of an executable file, without arguments";
        let absolute = std::path::absolute(path).map_err(|error| failure(&error, give))?;
        match std::fs::metadata(&absolute) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(failure(&"it is not a file", give)),
            Err(error) => return Err(failure(&error, give)),
        }
        if rustix::fs::access(&absolute, Access::EXEC_OK).is_err() {
            let next = format!("make it executable: chmod +x {shown}");
            return Err(failure(&"it is not executable", &next));
        }
        Ok(Self {
            path: absolute,
            profile: profile.to_owned(),
            time_max,
        })
    }

    /// How it is called in texts for people.
    pub(crate) fn name(&self) -> String {
        shown_path(&self.path)
    }

    /// The longest time that it may take.
    pub(crate) const fn time_max(&self) -> Duration {
        self.time_max
    }

    /// Starts it with a line on its standard input. How it ended is told to `notifier`.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub(crate) fn start(&self, line: String, notifier: Notifier) -> io::Result<Busy> {
        let (handler, (stop, stopped)) = (self.clone(), channel());
        let work = move || {
            let Some(ended) = handler.run(line.as_bytes(), &stopped) else {
                return;
            };
            while !notifier.handled(&ended) && is_wanted(&stopped, PAUSE_MAX) {}
        };
        let thread = thread::Builder::new().name("on-message".to_owned());
        Ok(Busy {
            stop: Some(stop),
            thread: Some(thread.spawn(work)?),
        })
    }

    /// Runs it to its end; `None` if nobody wants that any more.
    fn run(&self, input: &[u8], stopped: &Receiver<()>) -> Option<Ended> {
        let mut command = Command::new(&self.path);
        command
            .env("PEER_PROFILE", &self.profile)
            .stdin(Stdio::piped())
            .stdout(io::stderr())
            .process_group(0);
        let started = command.spawn().and_then(|mut child| {
            let input = child.stdin.take().map(|pipe| Input::new(pipe, input));
            Ok((child, input.transpose()?))
        });
        match started {
            Ok((child, input)) => self.attend(child, input, stopped),
            Err(error) => Some(Ended::NotStarted(reason(&error))),
        }
    }

    /// Feeds it, and waits until it ends, or its time does.
    fn attend(
        &self,
        mut child: Child,
        mut input: Option<Input<'_>>,
        stopped: &Receiver<()>,
    ) -> Option<Ended> {
        let deadline = now() + self.time_max;
        let mut pause = PAUSE_FIRST;
        loop {
            // Once it has all of it, the end of its input follows.
            input = input.and_then(Input::go_on);
            match child.try_wait() {
                Ok(Some(status)) => return Some(ended(status)),
                Ok(None) => {}
                Err(error) => {
                    end(&mut child);
                    return Some(Ended::NotStarted(error.to_string()));
                }
            }
            let is_wanted = is_wanted(stopped, pause);
            if !is_wanted || now() >= deadline {
                end(&mut child);
                let after_s = self.time_max.as_secs();
                return is_wanted.then_some(Ended::TimedOut { after_s });
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }
}

/// The program runs. It is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It panics where a lock was poisoned, and that has been told.
            let _ = thread.join();
        }
    }
}

/// What is left to write to a program that may read slowly, or not at all.
struct Input<'a> {
    pipe: ChildStdin,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(pipe: ChildStdin, rest: &'a [u8]) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK)?;
        Ok(Self { pipe, rest })
    }

    /// Writes what can be without waiting; `None` when nothing is left, or nobody reads it.
    fn go_on(mut self) -> Option<Self> {
        while !self.rest.is_empty() {
            match self.pipe.write(self.rest) {
                Ok(len) => self.rest = &self.rest[len..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(self),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It may know enough.
                Err(_) => return None,
            }
        }
        None
    }
}

/// Lets some time pass. Tells whether the result is still wanted then.
fn is_wanted(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
}

/// Ends a program with everything that it has started.
fn end(child: &mut Child) {
    if let Err(error) = rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL) {
        log::warn!("cannot end a program and what it has started: {error}");
        // This one may be ours alone.
        let _ = child.kill();
    }
    // It is on its way out.
    let _ = child.wait();
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Well,
        (Some(code), _) => Ended::WithCode(code),
        (None, signal) => Ended::BySignal(signal.unwrap_or_default()),
    }
}

/// Why it did not begin, with what is usually wrong.
fn reason(error: &io::Error) -> String {
    const ENOEXEC: i32 = rustix::io::Errno::NOEXEC.raw_os_error();
    if error.raw_os_error() == Some(ENOEXEC) {
        return format!("{error}; a script begins with a line such as #!/bin/sh");
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn script(folder: &TempDir, text: &str, time_max: Duration) -> Handler {
        let path = folder.path().join("script");
        // Written by another program: what this one has open for writing, a program that another test starts at the
        // same time may have for a moment, too, and nobody can execute it then.
        let mut writer = Command::new("sh")
            .args(["-c", "rm -f \"$0\"; cat > \"$0\"; chmod 700 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let written = writer.stdin.take().unwrap().write_all(text.as_bytes());
        written.unwrap();
        assert!(writer.wait().unwrap().success());
        Handler::check(&path, folder.path(), time_max).unwrap()
    }

    fn run(handler: &Handler, input: &[u8]) -> Option<Ended> {
        let (_stop, stopped) = channel();
        handler.run(input, &stopped)
    }

    #[test]
    fn it_gets_a_line_and_the_profile_and_how_it_ends_is_told() {
        let folder = TempDir::new().unwrap();
        let long = [vec![b'x'; 1_000_000], vec![b'\n']].concat();
        let handler = script(
            &folder,
            "#!/bin/sh\ncat > \"$PEER_PROFILE/got\"; echo $# > \"$PEER_PROFILE/count\"\n",
            LONG,
        );
        assert_eq!(run(&handler, &long), Some(Ended::Well));
        assert_eq!(fs::read(folder.path().join("got")).unwrap(), long);
        assert_eq!(fs::read(folder.path().join("count")).unwrap(), b"0\n");
        // It need not read what it gets.
        for (text, ended) in [
            ("#!/bin/sh\nexit 3\n", Ended::WithCode(3)),
            ("#!/bin/sh\nkill -9 $$\n", Ended::BySignal(9)),
            ("#!/bin/sh\nexec 0<&-; exit 0\n", Ended::Well),
        ] {
            assert_eq!(run(&script(&folder, text, LONG), &long), Some(ended));
        }
        let no_program = run(&script(&folder, "no program\n", LONG), b"x");
        assert!(
            matches!(&no_program, Some(Ended::NotStarted(why)) if why.contains("#!/bin/sh")),
            "{no_program:?}"
        );
    }

    #[test]
    fn one_that_hangs_is_ended_with_what_it_has_started() {
        let folder = TempDir::new().unwrap();
        let time = Duration::from_secs(1);
        // The first shell waits for the second one, which outlives it unless the group is ended.
        let text = "#!/bin/sh\nsh -c 'echo $$ > \"$PEER_PROFILE/second\"; exec sleep 1000'\n";
        let handler = script(&folder, text, time);
        let long = vec![b'x'; 1_000_000];
        assert_eq!(run(&handler, &long), Some(Ended::TimedOut { after_s: 1 }));
        let second = fs::read_to_string(folder.path().join("second")).unwrap();
        let second = Pid::from_raw(second.trim().parse().unwrap()).unwrap();
        let deadline = now() + LONG;
        // Somebody else has to reap it before its number is free.
        let status = format!("/proc/{}/stat", second.as_raw_nonzero());
        let is_gone = || {
            let is_zombie = fs::read_to_string(&status).is_ok_and(|text| text.contains(") Z "));
            is_zombie || rustix::process::test_kill_process(second).is_err()
        };
        while !is_gone() {
            assert!(now() < deadline, "it still runs");
            thread::yield_now();
        }
    }

    #[test]
    fn nobody_waits_for_one_that_is_not_wanted_any_more() {
        let folder = TempDir::new().unwrap();
        let handler = script(&folder, "#!/bin/sh\nexec sleep 1000\n", LONG);
        let (stop, stopped) = channel();
        drop(stop);
        assert_eq!(handler.run(b"x", &stopped), None);
    }

    #[test]
    fn what_cannot_be_executed_is_refused_and_says_what_to_do() {
        let folder = TempDir::new().unwrap();
        let refused = |name: &str| {
            let path = folder.path().join(name);
            Handler::check(&path, folder.path(), LONG).unwrap_err()
        };
        fs::write(folder.path().join("plain"), "#!/bin/sh\n").unwrap();
        for (name, why, next) in [
            ("missing", "No such file", "give the path"),
            (".", "it is not a file", "give the path"),
            ("plain", "it is not executable", "chmod +x "),
        ] {
            let failure = refused(name);
            assert_eq!(failure.exit(), Exit::File);
            assert!(failure.why().unwrap().contains(why), "{failure:?}");
            assert!(failure.what_next().unwrap().contains(next), "{failure:?}");
        }
    }
}
