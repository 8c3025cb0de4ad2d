//! The page as a browser shows it.

use std::path::Path;

use serde_json::json;
use vestibule::lab::report;

use super::sample;
use crate::support::chromium::Tab;

/// How many shapes with a size each plot has at least, by its title; and what sticks out of the page.
const LOOK: &str = "({
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  ground: getComputedStyle(document.body).backgroundColor,
  plots: [...document.querySelectorAll('figure > svg')].map(plot => ({
    name: plot.getAttribute('aria-label').split('.')[0],
    width: plot.getBoundingClientRect().width,
    height: plot.getBoundingClientRect().height,
    shapes: [...plot.querySelectorAll('.line, .area, .whisker, .thick')]
      .filter(shape => shape.getTotalLength() > 0 && getComputedStyle(shape).stroke !== 'none').length,
    smallest: Math.min(...[...plot.querySelectorAll('text')].map(text => text.getBoundingClientRect().height)),
  })),
})";

#[tokio::test]
async fn a_browser_draws_every_plot_on_wide_and_narrow_screens_in_light_and_dark() {
    let directory = tempfile::tempdir().unwrap();
    let written = report::write(&sample::comparison(), directory.path()).unwrap();
    let url = format!("file://{}", written.html.display());
    let mut tab = Tab::open().await;
    let mut grounds = Vec::new();
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
        tab.show(&url, width, scheme).await;
        let look = tab.evaluate(LOOK).await;
        assert_eq!(look["wide"], 0, "{width} {scheme}: the page is wider than the screen");
        let plots = look["plots"].as_array().unwrap();
        // The distribution, the losses, three timelines, three of instances, 14 figures.
        assert_eq!(plots.len(), 2 + 3 + 3 + 14);
        for plot in plots {
            let name = &plot["name"];
            assert!(plot["shapes"].as_u64().unwrap() >= 1, "{width} {scheme}: nothing is drawn in {name}");
            let size = (plot["width"].as_f64().unwrap(), plot["height"].as_f64().unwrap());
            assert!(size.0 > 250.0 && size.1 > 50.0, "{width} {scheme}: {name} is {size:?}");
            let smallest = plot["smallest"].as_f64().unwrap();
            assert!(smallest > 10.0, "{width} {scheme}: text of {name} is {smallest} high");
        }
        grounds.push(look["ground"].clone());
        if let Some(directory) = std::env::var_os("VESTIBULE_PICTURES") {
            let path = Path::new(&directory).join(format!("report-{width}-{scheme}.png"));
            std::fs::write(path, tab.picture().await).unwrap();
        }
    }
    assert_eq!(tab.complaints, Vec::<String>::new());
    let (light, dark) = (json!("rgb(245, 246, 248)"), json!("rgb(15, 20, 26)"));
    assert_eq!(grounds, [light.clone(), dark.clone(), light, dark]);
}
