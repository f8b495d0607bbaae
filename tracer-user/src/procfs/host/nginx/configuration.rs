//! A configuration: the directives of a file and of those that it includes.

use std::{path::Path, sync::Arc};

use super::{
    Fault,
    statement::{End, Statements},
};
use crate::procfs::host::{Budget, Identity, Refusal, Root, root::is_pattern};

/// How many files may include each other, and blocks lie in each other. Real ones do so a handful of times.
const DEPTH: usize = 32;

/// How many gaps are kept with their reason; the others are counted.
const REASONS: usize = 8;

/// A directive.
#[derive(Debug)]
pub(crate) struct Directive {
    /// Its name, then its arguments.
    pub words: Vec<String>,
    /// What is in its block; that of a language like Lua is empty.
    pub block: Option<Vec<Self>>,
    /// The file that it stands in.
    pub file: Arc<Path>,
    /// The line that it begins at.
    pub line: u32,
}

impl Directive {
    /// What it is called.
    pub fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// What is in its block, if it has one.
    pub fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// What was left out of a configuration, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    /// The first few.
    reasons: Vec<String>,
    count: usize,
}

impl Gaps {
    /// Adds one, at a directive.
    pub fn add(&mut self, file: &Path, line: u32, reason: &dyn std::fmt::Display) {
        self.count += 1;
        if self.reasons.len() < REASONS {
            self.reasons.push(format!("{reason} (line {line} of {})", file.display()));
        }
    }

    /// What they are, in a sentence; none if there are none.
    pub fn sentence(&self) -> Option<String> {
        let more = self.count - self.reasons.len();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        (self.count > 0).then(|| format!("{}{more}", self.reasons.join("; ")))
    }
}

/// A configuration, as its files say it.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// The directives outside of any block, in order; those of the command line first. An `include` stands before what it includes.
    pub directives: Vec<Directive>,
    /// What was left out.
    pub gaps: Gaps,
    /// When the newest of its files was changed last (ns since 1970).
    pub changed_ns: i64,
}

impl Configuration {
    /// Reads a file and all that it includes. `further` are directives of the command line's.
    ///
    /// # Errors
    /// If the file itself cannot be read, there is no configuration in one of the files, or they are too much.
    pub fn read(root: &Root, main: &Path, further: Option<&str>) -> Result<Self, Refusal> {
        let folder = main.parent().unwrap_or(main);
        let mut reader =
            Reader { root, folder, budget: Budget::default(), open: Vec::new(), gaps: Gaps::default() };
        let mut directives = match further {
            Some(text) => reader.parse(text, &Arc::from(Path::new("-g")))?,
            None => Vec::new(),
        };
        directives.extend(reader.file(main)?);
        Ok(Self { directives, changed_ns: reader.budget.changed_ns(), gaps: reader.gaps })
    }

    /// From a text alone, with this host's files to include.
    #[cfg(test)]
    pub fn of_text(text: &str) -> Result<Self, Refusal> {
        let folder = tempfile::TempDir::new().unwrap();
        let main = folder.path().join("nginx.conf");
        std::fs::write(&main, text).unwrap();
        let root = Root::new(std::fs::File::open("/").unwrap().into());
        Self::read(&root, &main, None)
    }
}

struct Reader<'a> {
    root: &'a Root,
    /// From where relative includes go: the folder of the main file.
    folder: &'a Path,
    budget: Budget,
    /// The files that include each other.
    open: Vec<Identity>,
    gaps: Gaps,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path) -> Result<Vec<Directive>, Refusal> {
        if self.open.len() >= DEPTH {
            return Err(Refusal::TooDeep(path.to_owned()));
        }
        let (text, stat) = self.root.read(path, &mut self.budget)?;
        let identity = Identity::from(&stat);
        if self.open.contains(&identity) {
            return Err(Refusal::Loop(path.to_owned()));
        }
        self.open.push(identity);
        let directives = self.parse(&text, &Arc::from(path));
        self.open.pop();
        directives
    }

    fn parse(&mut self, text: &str, file: &Arc<Path>) -> Result<Vec<Directive>, Refusal> {
        self.block(&mut Statements::of(text), file, 0)
    }

    /// The directives up to the end of the text or, within a block, to its brace.
    fn block(
        &mut self,
        statements: &mut Statements<'_>,
        file: &Arc<Path>,
        depth: usize,
    ) -> Result<Vec<Directive>, Refusal> {
        let syntax = |line, fault| Refusal::Syntax { path: file.to_path_buf(), line, fault };
        let mut directives = Vec::new();
        loop {
            let (line, words, end) = statements.next().map_err(|fault| syntax(statements.line(), fault))?;
            self.budget.words(words.len())?;
            let block = match end {
                End::Text if depth == 0 => return Ok(directives),
                End::Text => return Err(syntax(line, Fault::End)),
                End::Close if depth > 0 => return Ok(directives),
                End::Close => return Err(syntax(line, Fault::Unexpected('}'))),
                End::Block if depth >= DEPTH => return Err(syntax(line, Fault::TooDeep)),
                End::Block => Some(self.block(statements, file, depth + 1)?),
                End::Foreign => Some(Vec::new()),
                End::Semicolon => None,
            };
            let directive = Directive { words, block, file: Arc::clone(file), line };
            let included = self.included(&directive)?;
            directives.push(directive);
            directives.extend(included);
        }
    }

    /// What a directive includes, if it does. A file that is not read is a gap, unless nothing more can be read at all.
    fn included(&mut self, directive: &Directive) -> Result<Vec<Directive>, Refusal> {
        let [name, pattern] = &directive.words[..] else { return Ok(Vec::new()) };
        if name != "include" || directive.block.is_some() {
            return Ok(Vec::new());
        }
        let pattern = self.folder.join(pattern);
        let is_tried = is_pattern(pattern.as_os_str());
        let paths = match self.root.expand(&pattern, &mut self.budget) {
            Ok(paths) => paths,
            Err(refusal) => return self.leave_out(directive, refusal).map(|()| Vec::new()),
        };
        let mut directives = Vec::new();
        for path in paths {
            match self.file(&path) {
                Ok(more) => directives.extend(more),
                // Beyond the part with `*` names are tried.
                Err(refusal) if is_tried && refusal.is_missing() => {}
                Err(refusal) => self.leave_out(directive, refusal)?,
            }
        }
        Ok(directives)
    }

    fn leave_out(&mut self, directive: &Directive, refusal: Refusal) -> Result<(), Refusal> {
        if refusal.is_exhaustion() || matches!(refusal, Refusal::Syntax { .. }) {
            return Err(refusal);
        }
        self.gaps.add(&directive.file, directive.line, &refusal);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
