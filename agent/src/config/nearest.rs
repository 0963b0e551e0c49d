//! The nearest of some known words to one that is not known, for "did you mean".

/// Longer than any key or name.
const WORD_BYTES_MAX: usize = 512;

/// The known word with the smallest edit distance to `word`, if that is at most a third of its length.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Of what isn't a word nothing is near, and finding out takes long.
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let best = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min()?;
    (best.0 <= word.len().div_ceil(3)).then_some(best.1)
}

/// Levenshtein's distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_nonsense_is_not() {
        assert_eq!(nearest("witnes", &["name", "witness"]), Some("witness"));
        assert_eq!(nearest("colour", &["name", "witness"]), None);
    }
}
