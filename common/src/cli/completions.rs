//! Completions of a binary for three shells, from the same definitions as its `--help`. Pure: text out, the same text each time.
//!
//! Each script walks the words before the cursor to the command that they name, past options and their values, and then offers
//! the commands or options of that place; where neither is wanted, files. No helper packages are needed.

use argh::{CommandInfoWithArgs, FlagInfoKind};

use super::manual::{first_sentence, own_flags};
use super::{Failure, Program};
use crate::units::nearest;

/// A shell that completions are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash 4 and later.
    Bash,
    /// zsh 5 and later.
    Zsh,
    /// fish 3 and later.
    Fish,
}

impl Shell {
    /// All, in the order of their names.
    pub const ALL: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Result<Shell, Failure> {
        let found = Shell::ALL.into_iter().find(|shell| shell.name() == name);
        found.ok_or_else(|| {
            let failure = Failure::usage(format!("no completions are written for the shell `{name}`"));
            match nearest(name, Shell::ALL.into_iter().map(Shell::name)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("expected one of: bash, fish, zsh"),
            }
        })
    }

    /// Where packages put the completions of a program, below a folder of this shell's.
    pub fn file_name(self, program: &str) -> String {
        match self {
            Shell::Bash => program.to_string(),
            Shell::Zsh => format!("_{program}"),
            Shell::Fish => format!("{program}.fish"),
        }
    }
}

/// The script.
pub fn script(program: &Program, info: &CommandInfoWithArgs, shell: Shell) -> String {
    let mut places = Vec::new();
    walk(program, info, "", &mut places);
    match shell {
        Shell::Bash => bash(program, &places),
        Shell::Zsh => zsh(program, &places),
        Shell::Fish => fish(program, &places),
    }
}

/// A command, and what may follow it.
struct Place {
    /// Names of the commands above and of itself, by blanks; nothing for the program.
    name: String,
    /// Commands below it, and what they do.
    commands: Vec<(String, String)>,
    options: Vec<Flag>,
}

struct Flag {
    names: Vec<String>,
    takes_value: bool,
    about: String,
}

fn walk(program: &Program, info: &CommandInfoWithArgs, name: &str, out: &mut Vec<Place>) {
    let about = |text: &str| first_sentence(text);
    let commands = info.commands.iter().map(|one| (one.name.to_string(), about(one.command.description))).collect();
    let own = own_flags(info).into_iter().map(|flag| Flag {
        names: [flag.long.to_string()].into_iter().chain(flag.short.map(|short| format!("-{short}"))).collect(),
        takes_value: !matches!(flag.kind, FlagInfoKind::Switch),
        about: about(flag.description),
    });
    let mut options: Vec<Flag> = own.collect();
    let switch = |name: &str, text: &str| Flag { names: vec![name.into()], takes_value: false, about: text.into() };
    let common = program.options.iter().map(|option| Flag {
        names: option.names.iter().map(|name| name.to_string()).collect(),
        takes_value: option.value.is_some(),
        about: about(option.help),
    });
    let common = common.chain([switch("--help", "tell of the command"), switch("--version", "print the version")]);
    for flag in common {
        // An option of the command hides a common one, as it does when the line is parsed.
        if !options.iter().any(|own| own.names.iter().any(|name| flag.names.contains(name))) {
            options.push(flag);
        }
    }
    out.push(Place { name: name.to_string(), commands, options });
    for one in &info.commands {
        let below = if name.is_empty() { one.name.to_string() } else { format!("{name} {}", one.name) };
        walk(program, &one.command, &below, out);
    }
}

impl Place {
    fn option_names(&self) -> Vec<&str> {
        self.options.iter().flat_map(|flag| flag.names.iter().map(String::as_str)).collect()
    }

    /// Patterns `PLACE:OPTION` of options that take the next word.
    fn takers(&self) -> Vec<String> {
        let takers = self.options.iter().filter(|flag| flag.takes_value);
        takers.flat_map(|flag| flag.names.iter().map(|name| format!("'{}:{name}'", self.name))).collect()
    }

    /// Patterns `PLACE:WORD` of words that lead to another command.
    fn steps(&self) -> Vec<String> {
        self.commands.iter().map(|(word, _)| format!("'{}:{word}'", self.name)).collect()
    }
}

fn all(places: &[Place], of: impl Fn(&Place) -> Vec<String>, between: &str) -> String {
    places.iter().flat_map(of).collect::<Vec<_>>().join(between)
}

/// The walk, in words that bash and zsh share. The last word is at index `last`.
fn posix_walk(places: &[Place], first: u8, last: &str) -> String {
    let (takers, steps) = (all(places, Place::takers, " | "), all(places, Place::steps, " | "));
    format!(
        "    for ((i = {first}; i < {last}; i++)); do\n\
        \x20       word=${{words[i]}}\n\
        \x20       if [[ -n $skip ]]; then\n\
        \x20           [[ $word == = ]] || skip=\n\
        \x20           continue\n\
        \x20       fi\n\
        \x20       case \"$place:$word\" in\n\
        \x20           {takers}) skip=1 ;;\n\
        \x20           {steps}) place=${{place:+$place }}$word ;;\n\
        \x20       esac\n\
        \x20   done\n"
    )
}

fn bash(program: &Program, places: &[Place]) -> String {
    let (name, function) = (program.name, function_name(program));
    let mut out = format!(
        "# Completions of {name} for bash, made by `vigocli completions`.\n\
        # shellcheck shell=bash\n\
        {function}() {{\n\
        \x20   local cur=${{COMP_WORDS[COMP_CWORD]}} place='' word='' skip='' commands='' options='' i\n\
        \x20   local words=(\"${{COMP_WORDS[@]}}\")\n\
        {}\
        \x20   COMPREPLY=()\n\
        \x20   # A value: files, which is what readline does with no answer.\n\
        \x20   [[ -z $skip && $cur != = ]] || return 0\n\
        \x20   case $place in\n",
        posix_walk(places, 1, "COMP_CWORD")
    );
    for place in places {
        let commands: Vec<&str> = place.commands.iter().map(|(word, _)| word.as_str()).collect();
        let (at, options) = (&place.name, place.option_names().join(" "));
        out.push_str(&format!("        '{at}') commands='{}' options='{options}' ;;\n", commands.join(" ")));
    }
    out.push_str(&format!(
        "    esac\n\
        \x20   case $cur in\n\
        \x20       -*) mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\") ;;\n\
        \x20       *) [[ -z $commands ]] || mapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\") ;;\n\
        \x20   esac\n\
        }}\n\
        complete -o default -F {function} {name}\n"
    ));
    out
}

fn zsh(program: &Program, places: &[Place]) -> String {
    let (name, function) = (program.name, function_name(program));
    let mut out = format!(
        "#compdef {name}\n\
        # Completions of {name} for zsh, made by `vigocli completions`.\n\
        {function}() {{\n\
        \x20   local place='' word='' skip='' i\n\
        \x20   local -a commands options\n\
        {}\
        \x20   if [[ -n $skip ]]; then\n\
        \x20       _files\n\
        \x20       return\n\
        \x20   fi\n\
        \x20   case $place in\n",
        posix_walk(places, 2, "CURRENT")
    );
    let entry = |word: &str, about: &str| format!("'{word}:{}'", about.replace('\'', "'\\''"));
    for place in places {
        let commands: Vec<String> = place.commands.iter().map(|(word, about)| entry(word, about)).collect();
        let options = place.options.iter().flat_map(|flag| flag.names.iter().map(|name| entry(name, &flag.about)));
        out.push_str(&format!(
            "        '{}')\n            commands=({})\n            options=({})\n            ;;\n",
            place.name,
            commands.join(" "),
            options.collect::<Vec<_>>().join(" ")
        ));
    }
    out.push_str(&format!(
        "    esac\n\
        \x20   if [[ ${{words[CURRENT]}} == -* ]]; then\n\
        \x20       _describe -o option options\n\
        \x20   elif (( ${{#commands}} )); then\n\
        \x20       _describe command commands\n\
        \x20   else\n\
        \x20       _files\n\
        \x20   fi\n\
        }}\n\
        if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n\
        \x20   {function} \"$@\"\n\
        else\n\
        \x20   compdef {function} {name}\n\
        fi\n"
    ));
    out
}

fn fish(program: &Program, places: &[Place]) -> String {
    let (name, function) = (program.name, function_name(program));
    let (takers, steps) = (all(places, Place::takers, " "), all(places, Place::steps, " "));
    let mut out = format!(
        "# Completions of {name} for fish, made by `vigocli completions`.\n\
        function _{function}_at\n\
        \x20   set -l place ''\n\
        \x20   set -l skip 0\n\
        \x20   for word in (commandline -opc)[2..-1]\n\
        \x20       if test $skip = 1\n\
        \x20           set skip 0\n\
        \x20           continue\n\
        \x20       end\n\
        \x20       switch \"$place:$word\"\n\
        \x20           case {takers}\n\
        \x20               set skip 1\n\
        \x20           case {steps}\n\
        \x20               set place (string trim \"$place $word\")\n\
        \x20       end\n\
        \x20   end\n\
        \x20   test \"$place\" = \"$argv[1]\"\n\
        end\n"
    );
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    for place in places {
        let at = format!("complete -c {name} -n \"_{function}_at '{}'\"", place.name);
        for (word, about) in &place.commands {
            out.push_str(&format!("{at} -f -a {word} -d {}\n", quote(about)));
        }
        for flag in &place.options {
            let names = flag.names.iter().map(|name| match name.strip_prefix("--") {
                Some(long) => format!(" -l {long}"),
                None => format!(" -s {}", name.trim_start_matches('-')),
            });
            let value = if flag.takes_value { " -r" } else { "" };
            let names: String = names.collect();
            out.push_str(&format!("{at}{names}{value} -d {}\n", quote(&flag.about)));
        }
    }
    out
}

fn function_name(program: &Program) -> String {
    format!("_{}", program.name.replace('-', "_"))
}
