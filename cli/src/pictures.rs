//! Small grey pictures as characters.

/// From dark to bright; each pixel takes two, since characters are tall.
const BLOCKS: [char; 5] = [' ', '░', '▒', '▓', '█'];
const ASCII: [char; 5] = [' ', '.', '+', '#', '@'];

/// The largest picture that is drawn, in pixels a side.
pub(crate) const MAX_SIDE: usize = 32;

/// The columns that pictures side by side may take, where no terminal says how many
/// it has.
const COLUMNS: usize = 78;

/// Pixels row by row, and a line to stand below them.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) pixels: Vec<f64>,
    pub(crate) caption: String,
}

/// Draws pictures side by side, as many as fit, in lines.
pub(crate) fn draw(pictures: &[Picture]) -> Vec<String> {
    let characters = if is_utf8() { BLOCKS } else { ASCII };
    let mut lines = Vec::new();
    let Some(widest) = pictures.iter().map(Picture::columns).max() else {
        return lines;
    };
    let columns = terminal_size::terminal_size().map_or(COLUMNS, |(w, _)| w.0.into());
    for row in pictures.chunks(((columns + 2) / (widest + 2)).max(1)) {
        let drawn: Vec<_> = row.iter().map(|p| p.lines(&characters)).collect();
        let height = drawn.iter().map(Vec::len).max().unwrap_or(0);
        for i in 0..height {
            let parts = drawn.iter().map(|lines| {
                let line = lines.get(i).map_or("", String::as_str);
                let missing = widest.saturating_sub(line.chars().count());
                format!("{line}{}", " ".repeat(missing))
            });
            let line = parts.collect::<Vec<_>>().join("  ");
            lines.push(line.trim_end().to_owned());
        }
        lines.push(String::new());
    }
    lines
}

impl Picture {
    fn columns(&self) -> usize {
        (2 * self.width).max(self.caption.chars().count())
    }

    fn lines(&self, characters: &[char; 5]) -> Vec<String> {
        let finite = || self.pixels.iter().copied().filter(|v| v.is_finite());
        let low = finite().fold(f64::INFINITY, f64::min);
        let high = finite().fold(f64::NEG_INFINITY, f64::max);
        let character = |v: f64| {
            let part = (v - low) / (high - low);
            // A picture of one colour, and what is no number, are dark.
            let part = if part.is_finite() { part } else { 0.0 };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0.0 to 4.0
            let level = (part * 4.0).round() as usize;
            characters[level.min(4)]
        };
        let rows = self.pixels.chunks(self.width.max(1));
        let mut lines: Vec<String> = rows
            .map(|row| row.iter().flat_map(|&v| [character(v); 2]).collect())
            .collect();
        lines.push(self.caption.clone());
        lines
    }
}

/// Whether the locale says that the terminal shows UTF-8. The first of these
/// that is set decides, as POSIX has it.
fn is_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|v| !v.is_empty());
    set.is_some_and(|v| {
        let v = v.to_string_lossy().to_lowercase();
        v.contains("utf-8") || v.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_side_by_side_over_their_captions() {
        let picture = |caption: &str| Picture {
            width: 2,
            pixels: vec![0.0, 1.0, 1.0, 0.5],
            caption: caption.into(),
        };
        let one = picture("a").lines(&ASCII);
        assert_eq!(one, ["  @@", "@@++", "a"]);
        assert_eq!(draw(&[picture("a"), picture("b")]).len(), 4);
        assert!(draw(&[]).is_empty());
    }
}
