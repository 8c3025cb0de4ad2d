//! Reads numbers out of a page of metrics.

use std::net::SocketAddr;
use std::time::Duration;

use super::{client, within};

/// [`sum`] over the page that the admin listener at this address serves now.
pub(crate) async fn read(admin: SocketAddr, name: &str, labels: &str) -> f64 {
    sum(client::get(admin, "/metrics").await.text(), name, labels)
}

/// Waits until [`read`] gives this value.
pub(crate) async fn wait_for(admin: SocketAddr, name: &str, labels: &str, value: f64) {
    within(name, async {
        while read(admin, name, labels).await != value {
            tokio::time::sleep(Duration::from_millis(5)).await; // numbers are for asking, not for waiting
        }
    })
    .await;
}

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
