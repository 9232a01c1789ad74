//! The `bartizan` program. Everything is in the library, where tests reach it.

fn main() -> std::process::ExitCode {
    bartizan_sensor::cli::main()
}
