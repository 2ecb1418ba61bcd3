//! The smallest policy that can be watched: one file, kept with a content that the mapping chooses.

use std::fs;

use crate::process::wait_for;
use crate::site::Envoy;

/// The configcrate `kept`: the file `/kept` holds `vars.content` and a line break.
pub const KEPT: (&str, &str) = (
    "configcrates/kept.vgo",
    "name: kept\nresources:\n  - {name: kept, type: file, target_path: /kept, content: \"{{ vars.content }}\\n\", mode: \"0644\"}\n",
);

/// The file of the mappings.
pub const MAPPINGS: &str = "envoys/all.vgo";

/// A mapping that gives hosts of this pattern the configcrate with this content; several make the text of [`MAPPINGS`].
pub fn mappings(each: &[(&str, &str)]) -> String {
    let entry = |(pattern, content): &(&str, &str)| {
        format!("  - {{match: '{pattern}', configcrates: [kept], vars: {{content: {content}}}}}\n")
    };
    format!("envoys:\n{}", each.iter().map(entry).collect::<String>())
}

impl Envoy {
    /// Waits until the file has this content.
    pub fn keeps(&self, content: &str) {
        let wanted = format!("{content}\n");
        wait_for(&format!("`{content}` to be kept"), || match fs::read_to_string(self.path("kept")) {
            Ok(text) if text == wanted => Ok(()),
            found => Err(format!("{found:?}: {}", self.log())),
        });
    }

    /// Breaks the file and waits for its repair.
    pub fn repairs(&self, content: &str) {
        fs::write(self.path("kept"), "broken").expect("a file");
        self.keeps(content);
    }
}
