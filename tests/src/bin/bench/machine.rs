//! The machine, in one line: without it no figure means anything.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

/// CPUs, memory, and the file system that holds `state`.
pub fn describe(state: &Path) -> String {
    let cpus = available_parallelism().map_or(0, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".into());
    let kibibytes = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
    let gibibytes = kibibytes.unwrap_or(0_u64) >> 20;
    format!("{cpus} CPUs ({model}), {gibibytes} GiB, state on {}", file_system(state))
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system of `path`: the mount with the longest path that leads to it.
fn file_system(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    mount.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
}
