//! How much memory this process has taken, counted where it takes it, and how much its container may have.
//!
//! A container that exceeds its limit is killed, and with it every request it carries. What the kernel counts comes too
//! late to prevent that, and does not fall again when memory is given back to the allocator; so the allocator itself is
//! counted. The program has [`Counting`] as its allocator; whoever embeds the crate may, too, and without it nothing is
//! ever short.

use std::alloc::{GlobalAlloc, Layout, System};
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
