//! Test cases, counted by what the test programs say of them.

use std::ops::AddAssign;

/// Test cases by what became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Count {
    /// What a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...` says; nothing, if it is no such line.
    pub(crate) fn of_line(line: &str) -> Self {
        test_result(line).unwrap_or_default()
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed } = other;
        self.passed += passed;
        self.failed += failed;
    }
}

/// What a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...` says.
fn test_result(line: &str) -> Option<Count> {
    let (_verdict, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number =
        |word: &str| numbers.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
    Some(Count { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(test_result(line), Some(Count { passed: 12, failed: 3 }));
        assert_eq!(test_result("test result_is_told ... ok"), None);
        assert_eq!(test_result("running 3 tests"), None);
    }
}
