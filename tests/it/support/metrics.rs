//! Reads numbers out of a page of metrics.

/// The sum of all samples called `name` whose label set contains `labels` as text (`""` = all).
pub(crate) fn sum(page: &str, name: &str, labels: &str) -> f64 {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (own, own_labels) = series.split_once('{').unwrap_or((series, ""));
            (own == name && own_labels.contains(labels)).then(|| value.parse::<f64>().unwrap())
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let page = "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\"} 4\na 5\n# EOF\n";
        assert_eq!(sum(page, "a_total", ""), 7.0);
        assert_eq!(sum(page, "a_total", "x=\"2\""), 4.0);
        assert_eq!(sum(page, "a", ""), 5.0);
        assert_eq!(sum(page, "b", ""), 0.0);
    }
}
