//! The page around the sections.

use super::escape::escape;
use super::published;
use super::sections;
use crate::lab::compare::Comparison;

const STYLE: &str = include_str!("page.css");

/// The report as one HTML document that is also well-formed XML.
pub(super) fn page(comparison: &Comparison) -> String {
    let body = [
        sections::head(comparison),
        sections::tiles(comparison),
        sections::reasons(comparison),
        published::section(comparison),
        sections::overviews(comparison),
        sections::courses(comparison),
        sections::figures(comparison),
        sections::method(comparison),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         img-src data:; base-uri 'none'; form-action 'none'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n\
         <title>{} \u{b7} vestibule compare</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}\n</main>\n\
         </body>\n</html>\n",
        escape(&comparison.setup.scenario),
        body.join("\n")
    )
}
