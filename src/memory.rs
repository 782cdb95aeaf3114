//! How much memory this process has taken, counted where it takes it, and how much its container may have.
//!
//! A container that exceeds its limit is killed, and with it every request it carries. What the kernel counts comes too
//! late to prevent that, and does not fall again when memory is given back to the allocator; so the allocator itself is
//! counted. The program has [`Counting`] as its allocator; whoever embeds the crate may, too, and without it nothing is
//! ever short.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with a count of what was taken and not given back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Who was cut off for want of memory.
static CUT_OFF: AtomicUsize = AtomicUsize::new(0);
static PLENTY: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The part of a container's limit that may be taken before it counts as short. The rest is the program itself, stacks,
/// what the allocator keeps, the kernel's own for sockets, and what is still on its way when it is noticed. A thousand busy
/// connections take 48 MiB: at less than three quarters of 64 MiB they count as an attack. A real one takes 11 MiB beyond the part
/// before it is stopped (`tests/node`): at four fifths that was 62.5 MiB of 64.
const PART: f64 = 0.77;

/// What is conceded at least.
const STEP: usize = 1 << 20;

/// A limit above this is none: version 1 of the kernel's interface says so with a number.
const UNLIMITED: usize = 1 << 50;

// === impl Counting ===

#[expect(unsafe_code, reason = "an allocator cannot be written without it")]
// SAFETY: everything is left to the system's allocator; what is added touches no memory but a counter.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the same promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        TAKEN.fetch_add(size, Relaxed);
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the same promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes that are taken now; 0 without [`Counting`].
pub fn taken() -> usize {
    TAKEN.load(Relaxed)
}

/// Whether so much is taken that the container's limit is near.
pub fn is_short() -> bool {
    taken() > PLENTY.load(Relaxed)
}

/// Whether it would be, were so many bytes less taken.
pub fn is_short_without(bytes: usize) -> bool {
    taken().saturating_sub(bytes) > PLENTY.load(Relaxed)
}

/// Somebody is cut off for want of memory.
pub fn cut_off() {
    CUT_OFF.fetch_add(1, Relaxed);
}

/// How many were so far.
pub fn were_cut_off() -> usize {
    CUT_OFF.load(Relaxed)
}

/// What is taken cannot be given back: from now on memory is short half-way from there to the limit. One that is passed
/// already says nothing.
pub fn concede() {
    let taken = taken();
    let left = LIMIT.load(Relaxed).saturating_sub(taken);
    PLENTY.store(taken + (left / 2).max(STEP), Relaxed);
}

/// From now on memory is short near this limit, in bytes.
pub fn heed(limit: usize) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of what fits"
    )]
    let plenty = (limit as f64 * PART) as usize;
    LIMIT.store(limit, Relaxed);
    PLENTY.store(plenty, Relaxed);
}

/// The limit of the container that this process is in; `None`: there is none.
pub fn of_this_container() -> Option<usize> {
    limit(Path::new("/"))
}

fn limit(root: &Path) -> Option<usize> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = root.join("sys/fs/cgroup");
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (mount, file) = if controllers.is_empty() {
            (mounts.clone(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (mounts.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        // Inside a container the mount is usually the container's own group, whatever the path says.
        let own = mount.join(path.trim_start_matches('/'));
        let places = [own, mount];
        let text = places
            .iter()
            .find_map(|place| fs::read_to_string(place.join(file)).ok())?;
        // "max" is no number.
        text.trim().parse().ok().filter(|limit| *limit < UNLIMITED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_own_limit_is_read_and_none_is_none() {
        let root = std::env::temp_dir().join(format!("sidescale-memory-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
            fs::write(path, text).expect("a new file");
        };
        assert_eq!(limit(&root), None);
        write("proc/self/cgroup", "0::/\n");
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(limit(&root), None);
        write("sys/fs/cgroup/memory.max", "67108864\n");
        assert_eq!(limit(&root), Some(64 << 20));
        write("proc/self/cgroup", "4:memory:/kubepods/pod1\n");
        let own = "sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes";
        write(own, "9223372036854771712\n");
        assert_eq!(limit(&root), None);
        write(own, "1048576\n");
        assert_eq!(limit(&root), Some(1 << 20));
        fs::remove_dir_all(&root).ok();
    }
}
