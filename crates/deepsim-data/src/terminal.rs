//! What a program says to people: see [`deepsim_terminal`].

pub use deepsim_terminal::{
    Stderr, command, end_as_first_process, escape, fail_at_the_file_limit, is_obeyed, json, log,
    one_line, parse, path, print, print_data, quote, tell,
};
