//! A histogram with fixed bounds.

use super::Text;

/// Observations by their size.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is larger than all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let at = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += value;
    }

    pub(super) fn render(&self, text: &mut Text, name: &str, labels: &[(&str, &str)]) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (at, count) in self.counts.iter().enumerate() {
            below += count;
            let bound = self.bounds.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            text.line(&bucket, &[labels, &[("le", &bound)]].concat(), below as f64);
        }
        text.line(&format!("{name}_sum"), labels, self.sum);
        text.line(&format!("{name}_count"), labels, below as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_is_at_most_their_bound() {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        for value in [0.1, 0.5, 7.0] {
            histogram.observe(value);
        }
        let mut text = Text::default();
        histogram.render(&mut text, "x_seconds", &[]);
        let expected = "x_seconds_bucket{le=\"0.1\"} 1\n\
                        x_seconds_bucket{le=\"1\"} 2\nx_seconds_bucket{le=\"+Inf\"} 3\nx_seconds_sum 7.6\nx_seconds_count 3\n";
        assert_eq!(text.into_string(), expected);
    }
}
