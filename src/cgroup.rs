//! What this container may have of the machine: its CPU limit, and for how long that has stopped it, and its memory limit.
//!
//! A CPU limit stops every thread of a container when it is used up, for the rest of a tenth of a second, the one that carries
//! requests included. Nothing in the process can prevent it: it can only be said.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The control group that limits this process's CPU time: version 2 of the kernel's interface, or version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuGroup {
    dir: PathBuf,
    version: Version,
}

/// A memory limit above this is none: version 1 says so with a number.
const UNLIMITED: usize = 1 << 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

// === impl CpuGroup ===

impl CpuGroup {
    /// The group this process is in; `None` where none limits CPU time, or none can be read.
    pub fn of_this_process() -> Option<Self> {
        Self::find(Path::new("/"))
    }

    /// The cores that the limit allows; `None`: there is no limit.
    pub fn limit(&self) -> Option<f64> {
        let (quota, period) = match self.version {
            Version::Two => {
                let text = self.read("cpu.max")?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            Version::One => (
                self.number("cpu.cfs_quota_us")?,
                self.number("cpu.cfs_period_us")?,
            ),
        };
        // "max" is no number, and version 1 says -1.
        let cores: f64 = quota / period;
        (cores > 0.0 && cores.is_finite()).then_some(cores)
    }

    /// For how long it was stopped by its limit since it began.
    pub fn throttled(&self) -> Option<Duration> {
        let text = self.read("cpu.stat")?;
        let field = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            rest.trim().parse().ok()
        };
        match self.version {
            Version::Two => field("throttled_usec ").map(Duration::from_micros),
            Version::One => field("throttled_time ").map(Duration::from_nanos),
        }
    }

    fn find(root: &Path) -> Option<Self> {
        let (version, dir, _file) = group(root, "cpu", "cpu.max", "cpu.cfs_quota_us")?;
        Some(Self { dir, version })
    }

    fn number(&self, file: &str) -> Option<f64> {
        self.read(file)?.trim().parse().ok()
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(file)).ok()
    }
}

/// The memory that the container of this process may take, in bytes; `None`: there is no limit.
pub fn memory_limit() -> Option<usize> {
    memory_limit_under(Path::new("/"))
}

fn memory_limit_under(root: &Path) -> Option<usize> {
    let (_version, dir, file) = group(root, "memory", "memory.max", "memory.limit_in_bytes")?;
    let text = fs::read_to_string(dir.join(file)).ok()?;
    // "max" is no number.
    text.trim().parse().ok().filter(|limit| *limit < UNLIMITED)
}

/// The group of this process that `controller` limits: the folder that has its file, and which file that is.
fn group(
    root: &Path,
    controller: &str,
    file_of_two: &'static str,
    file_of_one: &'static str,
) -> Option<(Version, PathBuf, &'static str)> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = root.join("sys/fs/cgroup");
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (version, mount, file) = if controllers.is_empty() {
            (Version::Two, mounts.clone(), file_of_two)
        } else if controllers.split(',').any(|name| name == controller) {
            (Version::One, mounts.join(controller), file_of_one)
        } else {
            return None;
        };
        // Inside a container the mount is usually the container's own group, whatever the path says.
        let own = mount.join(path.trim_start_matches('/'));
        let dir = [own, mount]
            .into_iter()
            .find(|dir| dir.join(file).exists())?;
        Some((version, dir, file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files in it, removed at the end.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("sidescale-cgroup-{name}-{}", std::process::id());
            let root = Self(std::env::temp_dir().join(name));
            for (file, text) in files {
                root.write(file, text);
            }
            root
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
            fs::write(path, text).expect("a new file");
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn a_container_with_a_limit_is_told_it_and_how_long_it_was_stopped() {
        let stat =
            "usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 1500000\nnr_bursts 0\n";
        let root = Root::new(
            "limit",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/cpu.max", "20000 100000\n"),
                ("sys/fs/cgroup/cpu.stat", stat),
            ],
        );
        let group = CpuGroup::find(&root.0).expect("a group");
        assert_eq!(group.limit(), Some(0.2));
        assert_eq!(group.throttled(), Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn the_own_group_comes_before_that_of_the_mount() {
        let root = Root::new(
            "own",
            &[
                ("proc/self/cgroup", "1:name=systemd:/x\n0::/kubepods/pod1\n"),
                ("sys/fs/cgroup/cpu.max", "20000 100000\n"),
                ("sys/fs/cgroup/kubepods/pod1/cpu.max", "max 100000\n"),
            ],
        );
        let group = CpuGroup::find(&root.0).expect("a group");
        assert_eq!((group.limit(), group.throttled()), (None, None));
    }

    #[test]
    fn version_1_says_the_same_in_other_words() {
        let root = Root::new(
            "one",
            &[
                (
                    "proc/self/cgroup",
                    "4:cpuset:/\n2:cpu,cpuacct:/not/here\n0::/\n",
                ),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
                (
                    "sys/fs/cgroup/cpu/cpu.stat",
                    "nr_periods 3\nnr_throttled 1\nthrottled_time 2000000\n",
                ),
            ],
        );
        let group = CpuGroup::find(&root.0).expect("a group");
        assert_eq!(group.limit(), Some(1.5));
        assert_eq!(group.throttled(), Some(Duration::from_millis(2)));
        fs::write(group.dir.join("cpu.cfs_quota_us"), "-1\n").expect("written");
        assert_eq!(group.limit(), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        let root = Root::new("none", &[("proc/self/cgroup", "0::/\nnonsense\n")]);
        assert_eq!(CpuGroup::find(&root.0), None);
        let root = Root::new(
            "odd",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("sys/fs/cgroup/cpu.max", "0 0"),
            ],
        );
        let group = CpuGroup::find(&root.0).expect("a group");
        assert_eq!(group.limit(), None);
    }

    #[test]
    fn the_containers_own_memory_limit_is_read_and_none_is_none() {
        let root = Root::new("memory", &[]);
        assert_eq!(memory_limit_under(&root.0), None);
        root.write("proc/self/cgroup", "0::/\n");
        root.write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(memory_limit_under(&root.0), None);
        root.write("sys/fs/cgroup/memory.max", "67108864\n");
        assert_eq!(memory_limit_under(&root.0), Some(64 << 20));
        root.write("proc/self/cgroup", "4:memory:/kubepods/pod1\n");
        let own = "sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes";
        root.write(own, "9223372036854771712\n");
        assert_eq!(memory_limit_under(&root.0), None);
        root.write(own, "1048576\n");
        assert_eq!(memory_limit_under(&root.0), Some(1 << 20));
    }
}
