//! What README.md shows, for tests that run it.

use std::fs;

pub fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// What stands under this heading.
#[track_caller]
pub fn section<'a>(readme: &'a str, heading: &str) -> &'a str {
    let from = readme.split(&format!("\n## {heading}\n")).nth(1);
    let from = from.unwrap_or_else(|| panic!("README.md has lost its section {heading}"));
    from.split("\n## ").next().unwrap()
}

/// The fenced examples in this language.
pub fn examples<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    text.split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}
