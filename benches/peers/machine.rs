//! What the machine tells of a process: the processor time that its scheduler booked, the memory it takes; and where
//! threads may run.

use std::fs;
use std::io;

use rustix::thread::CpuSet;

/// Where a thread may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// On this one.
    Only(usize),
    /// On all.
    Any,
}

/// Binds the calling thread, and whatever it starts from now on.
pub fn pin(core: Core) {
    let mut set = CpuSet::new();
    match core {
        Core::Only(core) => set.set(core),
        Core::Any => (0..cores()).for_each(|core| set.set(core)),
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("a thread could not be bound to {core:?}: {error}");
    }
}

/// Lets the calling thread run only when no other wants to.
pub fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        eprintln!("a thread could not step back: {error}");
    }
}

/// Raises the limit on open files as far as it is needed, or as far as it is allowed.
pub fn raise_descriptors() {
    // A connection takes a descriptor of the client and, while it is served, two of the proxy and one of the service.
    const NEEDED: u64 = 65_536;
    if rlimit::Resource::NOFILE.set(NEEDED, NEEDED).is_err()
        && let Err(error) = rlimit::increase_nofile_limit(NEEDED)
    {
        eprintln!("the limit on open files could not be raised: {error}");
    }
}

/// How many files a process started from here may open.
pub fn descriptors() -> u64 {
    rlimit::Resource::NOFILE.get_hard().unwrap_or(1_024)
}

/// How many cores there are.
pub fn cores() -> usize {
    fs::read_to_string("/proc/cpuinfo")
        .map_or(1, |info| {
            info.lines().filter(|line| line.starts_with("processor")).count()
        })
        .max(1)
}

/// A process and all it has started, as they are now.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}

/// Nanoseconds that the scheduler has booked to all threads of these processes. It counts what ran, not the ticks that
/// happened to see it run.
pub fn cpu_nanos(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between being listed and being read.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

/// The memory these processes take, in bytes, with what they share counted by share.
pub fn proportional_bytes(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        sum += kib.ok_or(io::ErrorKind::InvalidData)? * 1_024;
    }
    Ok(sum)
}

/// How busy the machine has been in the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
}
