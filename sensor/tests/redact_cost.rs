//! What redaction costs where there is nothing to redact: counted allocations, and a time that is shown and not judged
//! (`cargo test --release -p bartizan --test redact_cost -- --nocapture`).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use bartizan_sensor::redact::{Key, RedactionConfig, Redactor};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; the count is a thread's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn what_holds_no_secret_costs_no_allocation() {
    let redactor = Redactor::new(&RedactionConfig::default(), Key::from_bytes([7; 32])).expect("a redactor");
    let plain = [
        words(&["ls", "-la", "/var/log"]),
        words(&["/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet", "-O2", "-o", "/tmp/ccXyz.s", "main.c", "-Wall"]),
        words(&["bash", "-c", "cd /srv/app && ./configure --prefix=/usr && make -j4"]),
        words(&["grep", "-rn", "needle", "src/"]),
    ];
    for argv in &plain {
        let mut argv = argv.clone();
        let before = ALLOCATIONS.with(Cell::get);
        redactor.argv(black_box(&mut argv));
        assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "{argv:?}");
    }
    let suspicious = words(&["sh", "-c", "mysql -uroot -p'hunter2' shop < dump.sql"]);
    let time = |name: &str, argv: &[String]| {
        const ROUNDS: u32 = 20_000;
        let (bytes, started) = (argv.iter().map(String::len).sum::<usize>(), Instant::now());
        for _ in 0..ROUNDS {
            let mut argv = argv.to_vec();
            redactor.argv(black_box(&mut argv));
        }
        let with_copy = started.elapsed() / ROUNDS;
        let started = Instant::now();
        for _ in 0..ROUNDS {
            black_box(argv.to_vec());
        }
        println!(
            "{name}: {bytes} bytes, {:?} beyond the copy of the vector ({with_copy:?} with it)",
            with_copy.saturating_sub(started.elapsed() / ROUNDS)
        );
    };
    for argv in &plain {
        time("nothing suspicious", argv);
    }
    time("a secret in a script", &suspicious);
    time("a suspicious word, no secret", &words(&["git", "commit", "-m", "fix the token handling"]));
}
