//! How the story is told: numbered steps, and under each what was typed and what was printed.

use std::cell::Cell;

/// Columns before what a command printed.
const MARGIN: &str = "      ";

/// The teller.
#[derive(Debug, Default)]
pub struct Telling {
    steps: Cell<usize>,
}

impl Telling {
    /// Begins a step.
    pub fn step(&self, text: &str) {
        self.steps.set(self.steps.get() + 1);
        println!("\n{:3}.  {text}", self.steps.get());
    }

    /// How many steps there were.
    pub fn steps(&self) -> usize {
        self.steps.get()
    }

    /// A sentence within a step.
    pub fn say(&self, text: &str) {
        println!("{MARGIN}{text}");
    }

    /// A command as a person would type it.
    pub fn command(&self, program: &str, arguments: &[&str]) {
        let word = |word: &&str| match word.contains(' ') {
            true => format!("'{word}'"),
            false => (*word).to_owned(),
        };
        let words: Vec<_> = arguments.iter().map(word).collect();
        println!("{MARGIN}$ {program} {}", words.join(" "));
    }

    /// What a program printed.
    pub fn show(&self, output: &str) {
        for line in output.trim_end().lines() {
            println!("{MARGIN}  {line}");
        }
    }
}
