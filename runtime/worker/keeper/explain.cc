#include "runtime/worker/keeper/explain.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <string_view>

namespace pesc::keeper {
namespace {

std::string error_text(int error) { return strerror(error); }

std::string absolute(const std::string& path, const std::string& directory) {
  return path.starts_with('/') ? path : directory + "/" + path;
}

// The first bytes of a file: enough for an ELF header or a script's first line.
std::string head_of(const std::string& path) {
  char buffer[4096];
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return {};
  ssize_t size = ::read(file, buffer, sizeof(buffer));
  ::close(file);
  return size > 0 ? std::string(buffer, static_cast<size_t>(size)) : std::string();
}

std::string machine_name(uint16_t machine, uint8_t word_class) {
  switch (machine) {
    case EM_X86_64:
      return word_class == ELFCLASS32 ? "x32" : "x86_64";
    case EM_386:
      return "i686";
    case EM_AARCH64:
      return "aarch64";
    case EM_ARM:
      return "arm";
    case EM_RISCV:
      return word_class == ELFCLASS64 ? "riscv64" : "riscv32";
    case EM_PPC64:
      return "ppc64";
    case EM_S390:
      return "s390x";
    default:
      return "machine type " + std::to_string(machine);
  }
}

bool is_elf(std::string_view head) { return head.size() > 20 && head.starts_with("\177ELF"); }

std::string built_for(std::string_view head) {
  auto at = [&](size_t index) { return static_cast<uint8_t>(head[index]); };
  bool big_endian = at(EI_DATA) == ELFDATA2MSB;
  int machine = big_endian ? at(18) << 8 | at(19) : at(19) << 8 | at(18);
  return machine_name(static_cast<uint16_t>(machine), at(EI_CLASS));
}

// The interpreter that a script names in its first line; empty when it names none.
std::string interpreter_of(std::string_view head) {
  if (!head.starts_with("#!")) return {};
  std::string_view line =
      head.substr(2, head.find('\n') == head.npos ? head.npos : head.find('\n') - 2);
  size_t begin = line.find_first_not_of(" \t");
  if (begin == line.npos) return {};
  line = line.substr(begin);
  return std::string(line.substr(0, line.find_first_of(" \t")));
}

std::string explain_absent(const std::string& program, const std::string& head) {
  std::string interpreter = interpreter_of(head);
  if (interpreter.ends_with('\r')) {
    return program +
           ": its first line ends in a carriage return, as Windows editors leave it: convert the "
           "file (dos2unix)";
  }
  if (!interpreter.empty()) {
    return program + ": script interpreter " + interpreter +
           " named in its first line is not on this worker";
  }
  if (is_elf(head)) {
    utsname system{};
    uname(&system);
    return program + ": the loader it was linked for (" + built_for(head) +
           ") is not on this worker (" + system.machine +
           "): link it statically or build it on a system like this one";
  }
  return program + ": not found in the attempt's directory (is it among the job's files?)";
}

std::string explain_format(const std::string& program, const std::string& head) {
  if (is_elf(head)) {
    utsname system{};
    uname(&system);
    return program + ": built for another architecture (" + built_for(head) + ", this worker is " +
           system.machine + ")";
  }
  if (head.empty()) return program + ": the file is empty";
  return program +
         ": neither a program nor a script with an interpreter in its first line (as in "
         "#!/usr/bin/env python3)";
}

std::string explain_denied(const std::string& program, const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return program + ": permission denied on the way to it";
  if (S_ISDIR(info.st_mode)) return program + ": is a directory, not a program";
  if (!S_ISREG(info.st_mode)) return program + ": is not a regular file";
  if ((info.st_mode & 0111) == 0) {
    return program + ": not executable (chmod +x before submitting)";
  }
  std::string interpreter = interpreter_of(head_of(path));
  if (!interpreter.empty() && ::access(interpreter.c_str(), X_OK) != 0) {
    return program + ": script interpreter " + interpreter +
           " named in its first line is not executable";
  }
  return program +
         ": may not be executed by this user here (permissions, or a file system mounted noexec)";
}

StartFailure explain_exec(int error, const std::string& program,
                          const std::vector<std::string>& candidates,
                          const std::string& working_directory, const std::string& search_path) {
  bool bare = program.find('/') == program.npos;
  // Of several candidates the one that is there is meant.
  std::string path;
  for (const std::string& candidate : candidates) {
    path = absolute(candidate, working_directory);
    if (::access(path.c_str(), F_OK) == 0) break;
    path.clear();
  }
  // A directory of the PATH that may not be entered is no reason to call a missing program one that
  // may not be executed: shells say 127 too.
  if (bare && path.empty() && (error == ENOENT || error == ENOTDIR || error == EACCES)) {
    return {127, program +
                     ": not found on this worker's PATH; install it there, or name a file (./" +
                     program + ") to send it along; the PATH is " + search_path};
  }
  int code = error == ENOENT || error == ENOTDIR ? 127 : 126;
  if (code == 127) {
    return {127, explain_absent(program, path.empty() ? std::string() : head_of(path))};
  }
  if (path.empty() && !candidates.empty()) path = absolute(candidates.back(), working_directory);
  if (error == EACCES) return {126, explain_denied(program, path)};
  if (error == ENOEXEC) return {126, explain_format(program, head_of(path))};
  if (error == E2BIG) {
    return {126, program + ": arguments and environment together are too long for this worker"};
  }
  if (error == ETXTBSY) return {126, program + ": is still open for writing"};
  return {126, program + ": cannot be executed: " + error_text(error)};
}

}  // namespace

StartFailure explain(Stage stage, int error, const std::string& program,
                     const std::vector<std::string>& candidates,
                     const std::string& working_directory, const std::string& search_path) {
  switch (stage) {
    case Stage::none:
      return {126, "the rank's supervising process was ended before the program started"};
    case Stage::fork:
      return {126, "cannot make a process on this worker: " + error_text(error) +
                       " (its limit on processes or its memory is used up)"};
    case Stage::user:
      return {126, "cannot become the user that ranks run as: " + error_text(error)};
    case Stage::directory:
      return {126,
              "cannot enter the working directory " + working_directory + ": " + error_text(error)};
    case Stage::exec:
      break;
  }
  return explain_exec(error, program, candidates, working_directory, search_path);
}

}  // namespace pesc::keeper
