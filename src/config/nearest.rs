//! Suggestions for misspelled words.

/// The word of `words` nearest to `word`, if the edit distance is at most a third of the longer length.
pub(super) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let measured = words.into_iter().map(|known| (distance(word, known), known));
    let (distance, known) = measured.min_by_key(|(distance, _)| *distance)?;
    let length = word.chars().count().max(known.chars().count());
    (distance <= length.max(3) / 3).then_some(known)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (line, from) in a.chars().enumerate() {
        let mut left = line + 1;
        let mut next = vec![left];
        for ((to, above), diagonal) in b.chars().zip(row.iter().skip(1)).zip(&row) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(from != to));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letter_changes() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not_offered() {
        assert_eq!(nearest("conect", ["connect", "keep_alive"]), Some("connect"));
        assert_eq!(nearest("frobnicate", ["connect", "keep_alive"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
