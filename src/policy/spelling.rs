//! Which known name somebody meant.

/// The known name that differs in at most a third of its letters.
pub(super) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let given: Vec<char> = given.to_lowercase().chars().take(64).collect();
    let distances = known.iter().map(|name| {
        let letters: Vec<char> = name.to_lowercase().chars().collect();
        (edits(&given, &letters), letters.len(), *name)
    });
    let (distance, length, name) = distances.min_by_key(|(distance, ..)| *distance)?;
    (distance <= (length / 3).max(1) && !given.is_empty()).then_some(name)
}

/// Letters to change, add or drop to get from `a` to `b`.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_pen_finds_its_name_and_another_word_finds_none() {
        let known = ["minReplicas", "maxReplicas", "mode"];
        for (given, expected) in [
            ("maxreplicas", Some("maxReplicas")),
            ("max_replicas", Some("maxReplicas")),
            ("minReplcas", Some("minReplicas")),
            ("mod", Some("mode")),
            ("schedule", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, &known), expected, "{given}");
        }
    }
}
