//! Names for what is written: unique, and plain where they are those of files.

use std::collections::HashMap;

/// Names that are taken, and the number that the next of the same is given.
#[derive(Default)]
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    /// `wish`, or where that is taken `wish_2`, `wish_3` and so on.
    pub(super) fn unique(&mut self, wish: &str) -> String {
        let mut name = wish.to_owned();
        while self.0.contains_key(&name) {
            let next = self.0.entry(wish.to_owned()).or_insert(2);
            name = format!("{wish}_{next}");
            *next += 1;
        }
        self.0.insert(name.clone(), 2);
        name
    }

    /// A unique name that is a file's, for a name that may hold anything.
    pub(super) fn file(&mut self, name: &str) -> String {
        let plain = |(i, c): (usize, char)| match c {
            '.' if i > 0 => c,
            '_' | '-' => c,
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        };
        let mut wish: String = name.chars().take(100).enumerate().map(plain).collect();
        if wish.is_empty() {
            wish.push('_');
        }
        self.unique(&wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_whatever_they_look_like() {
        let mut names = Names::default();
        let made = ["a", "a_2", "a", "a", "a_2", "b"].map(|n| names.unique(n));
        assert_eq!(made, ["a", "a_2", "a_3", "a_4", "a_2_2", "b"]);
    }

    #[test]
    fn no_name_leaves_its_folder() {
        let mut names = Names::default();
        let made = [
            "../x",
            ".",
            "..",
            "",
            "a/b",
            "a b",
            "é",
            "v.0",
            &"x".repeat(300),
        ]
        .map(|n| names.file(n));
        let long = "x".repeat(100);
        assert_eq!(
            made,
            [
                "_._x", "_", "_.", "__2", "a_b", "a_b_2", "__3", "v.0", &long
            ]
        );
    }
}
