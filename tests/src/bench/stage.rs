//! Where programs run: named cores, CPU time, namespaces of their own, warm memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::Failure;
use crate::program::{Program, Programs, Running, START, Server};

/// The kernel counts CPU time in hundredths of a second for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// A folder in memory.
pub(super) fn memory_folder() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("messenger-bench-")
        .tempdir_in(parent)
}

/// Touches `len` bytes of a folder in memory and gives them back: the first touch of a page is slow.
pub(super) fn warm_up(folder: &Path, len: u64) -> io::Result<()> {
    let path = folder.join("warm-up");
    fill(&path, len)?;
    fs::remove_file(path)
}

/// Makes a file of bytes that do not repeat.
pub(super) fn fill(path: &Path, len: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut block = vec![0; 1 << 20];
    for _ in 0..len.div_ceil(1 << 20) {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.set_len(len)
}

/// CPU seconds that a process has used so far, in user space and kernel.
pub(super) fn cpu_seconds(process: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(kernel)) => Ok((user + kernel) / TICKS_PER_SECOND),
        _ => Err(Failure::Wrong(format!("no CPU time in {stat:?}"))),
    }
}

/// CPU seconds that the threads of a process have used so far, to the nanosecond; those of threads that
/// have ended are not in it.
pub(super) fn thread_cpu_seconds(process: u32) -> Result<f64, Failure> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let schedule = fs::read_to_string(task?.path().join("schedstat"))?;
        let ran = schedule.split(' ').next().unwrap_or("");
        nanoseconds += ran
            .parse::<f64>()
            .map_err(|_| Failure::Wrong(format!("no CPU time in {schedule:?}")))?;
    }
    Ok(nanoseconds / 1e9)
}

/// Where a program runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The core that it is pinned to.
    pub(super) core: usize,
    /// The network namespace that it is in; the host's without one.
    pub(super) namespace: Option<String>,
}

impl Place {
    /// Turns a command into one that runs there.
    pub(super) fn wrap(&self, command: &Command) -> Command {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(Into::into));
        }
        words.extend(["taskset", "-c", &self.core.to_string()].map(Into::into));
        words.push(command.get_program().to_owned());
        words.extend(command.get_args().map(ToOwned::to_owned));
        let mut wrapped = Command::new(&words[0]);
        wrapped.args(&words[1..]).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped
    }
}

/// Starts our server at a place, on a free port of `ip`, and waits until it is ready.
pub(super) fn serve(
    programs: &Programs,
    place: &Place,
    ip: &str,
    more: &[&str],
) -> Result<Server, Failure> {
    let listen = format!("{ip}:0");
    let arguments = ["--data", "server", "serve", "--json", "--listen", &listen];
    let command = programs.command(Program::Rendezvous, arguments.iter().chain(more));
    let running = Running::start(Program::Rendezvous, &mut place.wrap(&command))?;
    let ready = running.wait_json("the server is ready", START, |line| line["ready"] == true)?;
    let text = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
    Ok(Server {
        running,
        address: text("address"),
        fingerprint: text("fingerprint"),
    })
}

/// Two network namespaces with a link of MTU 1500 between them. Gone when dropped.
#[derive(Debug)]
pub(super) struct Ethernet {
    names: [String; 2],
}

impl Ethernet {
    /// The addresses of the two ends.
    pub(super) const ADDRESSES: [&'static str; 2] = ["10.231.77.1", "10.231.77.2"];

    /// Makes them. The error says why that is not allowed here.
    pub(super) fn new() -> Result<Self, String> {
        let id = std::process::id();
        let ethernet = Self {
            names: [format!("bench{id}a"), format!("bench{id}b")],
        };
        let [a, b] = &ethernet.names;
        let mut steps = vec![
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("-n {a} link add bench0 mtu 1500 type veth peer name bench0 netns {b}"),
        ];
        for (name, address) in ethernet.names.iter().zip(Self::ADDRESSES) {
            steps.push(format!("-n {name} address add {address}/24 dev bench0"));
            steps.push(format!("-n {name} link set bench0 mtu 1500 up"));
            steps.push(format!("-n {name} link set lo up"));
        }
        for step in steps {
            ip(&step)?;
        }
        Ok(ethernet)
    }

    /// The namespace of an end.
    pub(super) fn namespace(&self, end: usize) -> String {
        self.names[end].clone()
    }
}

impl Drop for Ethernet {
    fn drop(&mut self) {
        for name in &self.names {
            // What was never made cannot be removed.
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("ip is not there: {error}")),
    }
}

/// A file's path as an argument.
pub(super) fn text(path: &Path) -> String {
    PathBuf::from(path).to_string_lossy().into_owned()
}
