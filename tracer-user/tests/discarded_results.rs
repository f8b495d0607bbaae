//! No error becomes nothing: every place where one is dropped is in `discarded_results.txt`, with the reason why it may be.
//!
//! It is looked for in what the compiler sees no fault with: `.ok()`, `.unwrap_or_default()`, `.flatten()`, `Result::ok`, `let Ok(..)`,
//! `Err(_)`, `|_|` for an error, and `let _ =`, an insert into a map of the kernel's among them. There are no types in a source's text, so
//! an `Option` may be met as well: that is a reason, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The sources, below the workspace's folder.
const SOURCES: [&str; 3] = ["tracer-user/src", "tracer-ebpf/src", "tracer-ebpf/wire/src"];
/// The exceptions, below this package's folder: after each `==` and a reason, lines of a file, a function, and the end of an expression.
const EXCEPTIONS: &str = "tests/discarded_results.txt";
/// Under this `RENEW=1` puts what has no reason yet.
const NO_REASON: &str = "TO DO: tell the error, count it, or say here why it may be dropped";
/// So much of an expression's end tells it from others.
const LONGEST: usize = 72;

#[test]
fn no_error_is_dropped_without_a_reason() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().expect("a workspace");
    let path = package.join(EXCEPTIONS);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut exceptions = read(&text);

    let (mut new, mut kept) = (Vec::new(), BTreeMap::<String, Vec<Place>>::new());
    for place in found(workspace) {
        let reason = exceptions.iter_mut().find_map(|(reason, places)| {
            let at = places.iter().position(|exception| *exception == place)?;
            places.remove(at);
            Some(reason.clone())
        });
        if reason.as_deref().is_none_or(|reason| reason == NO_REASON) {
            new.push(place.clone());
        }
        kept.entry(reason.unwrap_or_else(|| NO_REASON.to_owned())).or_default().push(place);
    }
    let stale: Vec<Place> = exceptions.into_values().flatten().collect();
    if std::env::var_os("RENEW").is_some() {
        fs::write(&path, written(&kept)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let list =
        |places: &[Place]| places.iter().map(|place| format!("\n  {}", place.line())).collect::<String>();
    assert!(
        new.is_empty(),
        "here an error may become nothing:{}\nTell it to the user or count it; or, where dropping it is right, put the line into {} \
         under its reason (RENEW=1 puts it there under none).",
        list(&new),
        path.display()
    );
    assert!(
        stale.is_empty(),
        "these exceptions are needed no more:{}\nTake them out of {} (RENEW=1 does).",
        list(&stale),
        path.display()
    );
}

/// Where an error may be dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: String,
    function: String,
    expression: String,
}

impl Place {
    fn line(&self) -> String {
        format!("{} {} {}", self.file, self.function, self.expression)
    }
}

fn read(text: &str) -> BTreeMap<String, Vec<Place>> {
    let mut exceptions = BTreeMap::<String, Vec<Place>>::new();
    let mut reason = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(next) = line.strip_prefix("== ") {
            reason = Some(next.to_owned());
            continue;
        }
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_else(|| panic!("no file, function and expression: {line}"));
        let place = Place { file: word(), function: word(), expression: word() };
        let reason = reason.clone().unwrap_or_else(|| panic!("no reason stands before: {line}"));
        exceptions.entry(reason).or_default().push(place);
    }
    exceptions
}

fn written(exceptions: &BTreeMap<String, Vec<Place>>) -> String {
    let mut text = "# Where an error may be dropped, and why: see discarded_results.rs.\n".to_owned();
    for (reason, places) in exceptions {
        text += &format!("\n== {reason}\n");
        let mut lines: Vec<String> = places.iter().map(Place::line).collect();
        lines.sort();
        lines.iter().for_each(|line| text += &format!("{line}\n"));
    }
    text
}

fn found(workspace: &Path) -> Vec<Place> {
    let mut places = Vec::new();
    for source in SOURCES {
        let mut files = Vec::new();
        rust_files(&workspace.join(source), &mut files);
        assert!(!files.is_empty(), "{source} has no sources");
        for file in files {
            let text =
                fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let name = file.strip_prefix(workspace).unwrap_or(&file).display().to_string();
            places.append(&mut of_file(&name, &text));
        }
    }
    places
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path())
        .collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            rust_files(&entry, files);
        } else if entry.extension().is_some_and(|end| end == "rs") && !entry.ends_with("tests.rs") {
            files.push(entry);
        }
    }
}

fn of_file(name: &str, text: &str) -> Vec<Place> {
    let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut search = Search { name, text, functions: Vec::new(), places: Vec::new(), in_conversion: false };
    search.visit_file(&file);
    search.places
}

struct Search<'a> {
    name: &'a str,
    text: &'a str,
    /// Those around what is looked at, the innermost last.
    functions: Vec<String>,
    places: Vec<Place>,
    /// Whether this is a pattern that a conversion is matched with.
    in_conversion: bool,
}

impl Search<'_> {
    fn note(&mut self, what: &impl Spanned) {
        let words = self.text[what.span().byte_range()].split_whitespace().collect::<Vec<_>>().join(" ");
        let words = words.replace(" .", ".");
        let begin = words.char_indices().rev().nth(LONGEST - 1).map_or(0, |(begin, _)| begin);
        self.places.push(Place {
            file: self.name.to_owned(),
            function: self.functions.last().map_or("-", String::as_str).to_owned(),
            expression: words[begin..].trim_start().to_owned(),
        });
    }

    fn within(&mut self, function: &syn::Ident, look: impl FnOnce(&mut Self)) {
        self.functions.push(function.to_string());
        look(self);
        self.functions.pop();
    }

    /// What a macro is given is no expression yet: it is read as tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (number, token) in tokens.iter().enumerate() {
            let is = |after: usize, word: &str| {
                tokens.get(number + after).is_some_and(|next| next.to_string() == word)
            };
            if let TokenTree::Group(group) = token {
                self.tokens(group.stream());
            }
            let drops = ["ok", "unwrap_or_default", "flatten"].iter().any(|word| is(1, word));
            let is_call = is(0, ".") && drops && is(2, "()");
            let is_let = is(0, "let") && (is(1, "_") || is(1, "Ok"));
            let is_insert = is(0, ".") && is(1, "insert") && is(3, ";");
            if is_call || is_let || is_insert {
                self.note(&tokens[number + 1]);
            }
        }
    }
}

/// Whether code is for tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// The last word of what is called.
fn called(call: &syn::ExprCall) -> Option<String> {
    let syn::Expr::Path(path) = &*call.func else { return None };
    Some(path.path.segments.last()?.ident.to_string())
}

/// Whether an expression turns what is already here into another type: that it cannot is no word of the system's.
fn is_conversion(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::MethodCall(call) => call.method == "parse" || call.method == "try_into",
        syn::Expr::Call(call) => {
            matches!(called(call).as_deref(), Some("try_from" | "from_str_radix" | "read_from_bytes"))
        }
        _ => false,
    }
}

/// Whether an expression looks into what is already here, and gives an `Option`.
fn is_look(expression: &syn::Expr) -> bool {
    let syn::Expr::MethodCall(call) = expression else { return false };
    ["get", "get_mut", "next", "last", "first", "pop", "as_deref"].iter().any(|look| call.method == look)
}

/// Whether a value may be let go without a look: a guard, which only ends later; what is removed from a map, where it may be gone already.
fn may_go(value: &syn::Expr) -> bool {
    match value {
        syn::Expr::MethodCall(call) => call.method == "remove",
        syn::Expr::Call(call) => called(call).as_deref() == Some("begin"),
        _ => false,
    }
}

fn is_ok(pattern: &syn::Pat) -> bool {
    matches!(pattern, syn::Pat::TupleStruct(pattern) if pattern.path.is_ident("Ok"))
}

/// Whether the first argument is a closure that looks at no error.
fn looks_away(call: &syn::ExprMethodCall) -> bool {
    let Some(syn::Expr::Closure(closure)) = call.args.first() else { return false };
    matches!(closure.inputs.first(), Some(syn::Pat::Wild(_)))
}

impl<'ast> Visit<'ast> for Search<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.within(&item.sig.ident, |search| visit::visit_item_fn(search, item));
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.within(&item.sig.ident, |search| visit::visit_impl_item_fn(search, item));
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        visit::visit_expr_method_call(self, call);
        let has_none = call.args.is_empty();
        let drops = match call.method.to_string().as_str() {
            "ok" => has_none && !is_conversion(&call.receiver),
            "unwrap_or_default" => has_none && !is_conversion(&call.receiver) && !is_look(&call.receiver),
            "flatten" => has_none,
            "unwrap_or_else" | "map_or_else" => looks_away(call) && !is_conversion(&call.receiver),
            _ => false,
        };
        if drops {
            self.note(call);
        }
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let words: Vec<String> = path.path.segments.iter().map(|word| word.ident.to_string()).collect();
        if let [.., of, word] = &words[..]
            && of == "Result"
            && ["ok", "unwrap_or_default"].contains(&word.as_str())
        {
            self.note(path);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        visit::visit_local(self, local);
        let Some(init) = &local.init else { return };
        let is_unused = match &local.pat {
            syn::Pat::Wild(_) => true,
            syn::Pat::Ident(name) => name.ident.to_string().starts_with('_') && !may_go(&init.expr),
            pattern => is_ok(pattern) && init.diverge.is_some() && !is_conversion(&init.expr),
        };
        if is_unused {
            self.note(local);
        }
    }

    fn visit_expr_let(&mut self, expression: &'ast syn::ExprLet) {
        visit::visit_expr_let(self, expression);
        if is_ok(&expression.pat) && !is_conversion(&expression.expr) {
            self.note(expression);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        visit::visit_expr_call(self, call);
        let is_dropped = matches!(call.args.first(), Some(syn::Expr::MethodCall(_) | syn::Expr::Call(_)));
        if is_dropped && called(call).as_deref() == Some("drop") {
            self.note(call);
        }
    }

    fn visit_expr_match(&mut self, matched: &'ast syn::ExprMatch) {
        if !is_conversion(&matched.expr) {
            return visit::visit_expr_match(self, matched);
        }
        self.visit_expr(&matched.expr);
        for arm in &matched.arms {
            // An `Err(_)` here is no error of the system's.
            self.in_conversion = true;
            self.visit_pat(&arm.pat);
            self.in_conversion = false;
            self.visit_expr(&arm.body);
        }
    }

    fn visit_pat_tuple_struct(&mut self, pattern: &'ast syn::PatTupleStruct) {
        visit::visit_pat_tuple_struct(self, pattern);
        if !self.in_conversion
            && pattern.path.is_ident("Err")
            && matches!(pattern.elems.first(), Some(syn::Pat::Wild(_)))
        {
            self.note(pattern);
        }
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(item.tokens.clone());
    }
}

#[test]
fn every_way_to_drop_an_error_is_found() {
    let found = |code: &str| {
        let text = format!("fn f() {{ {code} }}\n#[cfg(test)]\nmod tests {{ fn g() {{ {code} }} }}");
        let places = of_file("a.rs", &text).into_iter();
        places.map(|place| (place.function, place.expression)).collect::<Vec<_>>()
    };
    for code in [
        "let a = read().ok();",
        "let a = read()\n    .unwrap_or_default();",
        "for a in read().into_iter().flatten() {}",
        "a.filter_map(Result::ok);",
        "a.flat_map(Result::unwrap_or_default);",
        "let _ = write();",
        "let _full = MAP.insert(a, b, 0);",
        "drop(MAP.insert(a, b, 0));",
        "let Ok(a) = read() else { return };",
        "if let Ok(a) = read() {}",
        "match read() { Ok(a) => a, Err(_) => 0 };",
        "read().unwrap_or_else(|_| 0);",
        "print!(\"{}\", read().ok());",
        "macro_rules! m { () => { let _ = MAP.remove(a); } }",
    ] {
        assert_eq!(found(code).len(), 1, "{code}: {:?}", found(code));
        assert_eq!(found(code)[0].0, "f");
    }
    for code in [
        "let a = text.parse::<u8>().ok();",
        "let a = u8::try_from(b).unwrap_or_default();",
        "let a = bytes.get(..4).unwrap_or_default();",
        "let _gone = MAP.remove(a);",
        "let _guard = Guard::begin();",
        "let Ok(a) = u8::try_from(b) else { return };",
        "let a = read()?;",
        "match text.parse() { Ok(a) => a, Err(_) => 0 };",
        "if let Err(error) = read() { tell(error) }",
    ] {
        assert_eq!(found(code), [], "{code}");
    }
    assert_eq!(found("let a = read(b)\n    .c\n    .ok();")[0].1, "read(b).c.ok()");
}
