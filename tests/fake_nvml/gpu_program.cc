// A stand-in for a CUDA program: takes memory of the fake driver's GPU that CUDA_VISIBLE_DEVICES
// names, keeps it for a while, and fails as CUDA programs do when there is not enough.
//
//   gpu_program [--driver SCRIPT] --bytes 1328M[,2G,…] [--seconds 2] [--until FIFO] [--exit N]
//               [--fault] [--ignore-sigterm]
//
// Each of the numbers is held for an equal part of the time. --until waits until somebody has
// opened FIFO for writing and closed it again. SCRIPT defaults to PESC_FAKE_NVML. PESC's own
// arguments (--rank 3 …) are let pass.
//
// In DIRECTORY/UUID/ of the fake driver: `record` has the highest sum of bytes, the highest number
// of programs at once, and how many began and how many failed for want of memory.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "script.h"

namespace {

constexpr int kOutOfMemory = 2, kNoDevice = 3, kFault = 4, kUsage = 64;

struct Arguments {
  std::string driver;
  std::vector<uint64_t> bytes;
  double seconds = 0;
  std::string until;
  int exit_code = 0;
  bool fault = false, ignore_sigterm = false;
};

struct Record {
  uint64_t highest_bytes = 0, highest_programs = 0, began = 0, refused = 0;
};

int usage(const std::string& what) {
  std::fprintf(stderr, "gpu_program: %s\n", what.c_str());
  return kUsage;
}

bool parse(int argc, char** argv, Arguments& arguments) {
  const char* driver = std::getenv("PESC_FAKE_NVML");
  if (driver != nullptr) arguments.driver = driver;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (word == "--fault") arguments.fault = true;
    if (word == "--ignore-sigterm") arguments.ignore_sigterm = true;
    if (word == "--driver") arguments.driver = value;
    if (word == "--seconds") arguments.seconds = std::atof(value.c_str());
    if (word == "--until") arguments.until = value;
    if (word == "--exit") arguments.exit_code = std::atoi(value.c_str());
    if (word != "--bytes") continue;
    std::istringstream parts(value);
    std::string part;
    while (std::getline(parts, part, ',')) {
      const auto bytes = fake_nvml::parse_size(part);
      if (!bytes) return false;
      arguments.bytes.push_back(*bytes);
    }
  }
  return !arguments.bytes.empty();
}

// The first that is visible, as CUDA has it: by UUID or number; all without the variable.
const fake_nvml::Gpu* visible_gpu(const fake_nvml::Script& script) {
  const std::vector<const fake_nvml::Gpu*> wholes = script.wholes();
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) return wholes.empty() ? nullptr : wholes.front();
  const std::string first = std::string(visible).substr(0, std::string(visible).find(','));
  if (!first.empty() && first.find_first_not_of("0123456789") == first.npos) {
    const size_t index = std::stoul(first);
    return index < wholes.size() ? wholes[index] : nullptr;
  }
  return script.find(first);
}

class Device {
 public:
  Device(fake_nvml::Script script, const fake_nvml::Gpu& gpu)
      : script_(std::move(script)),
        limit_(gpu.memory - gpu.reserved),
        kept_(gpu.used + fake_nvml::sum_of(gpu.processes)),
        path_(script_.directory + "/" + gpu.uuid),
        uuid_(gpu.uuid) {
    const mode_t mask = ::umask(0);  // ranks of several users share it
    ::mkdir(script_.directory.c_str(), 0777);
    ::mkdir(path_.c_str(), 0777);
    lock_ = ::open((path_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    ::umask(mask);
  }
  ~Device() {
    ::unlink(own().c_str());
    ::close(lock_);
  }

  // Empty: it can be used.
  std::string trouble() const {
    if (lock_ >= 0 && ::access(path_.c_str(), W_OK) == 0) return {};
    return "cannot write to " + path_ + ": ranks of another user need " + script_.directory +
           " with mode 777 beforehand";
  }
  // False: not as much is free.
  bool take(uint64_t bytes, bool first) {
    ::flock(lock_, LOCK_EX);
    const bool fits = take_locked(bytes, first);
    ::flock(lock_, LOCK_UN);
    return fits;
  }

 private:
  std::string own() const { return path_ + "/" + std::to_string(::getpid()); }

  bool take_locked(uint64_t bytes, bool first) {
    const auto pid = static_cast<uint32_t>(::getpid());
    uint64_t others = kept_, programs = 1;
    for (const fake_nvml::Process& process : fake_nvml::running_programs(script_, uuid_)) {
      if (process.pid == pid) continue;
      others += process.bytes;
      ++programs;
    }
    Record record;
    std::ifstream(path_ + "/record") >> record.highest_bytes >> record.highest_programs >>
        record.began >> record.refused;
    const bool fits = others + bytes <= limit_;
    if (first) ++record.began;
    if (fits) {
      record.highest_bytes = std::max(record.highest_bytes, others + bytes);
      write(own(), std::to_string(bytes) + " " + std::to_string(fake_nvml::start_time(pid)) + "\n");
    } else {
      ++record.refused;
    }
    // One that was refused was there as well: two where one should be is what a test looks for.
    record.highest_programs = std::max(record.highest_programs, programs);
    std::ostringstream text;
    text << record.highest_bytes << ' ' << record.highest_programs << ' ' << record.began << ' '
         << record.refused << '\n';
    write(path_ + "/record", text.str());
    return fits;
  }

  // Whole or not at all: the driver reads without the lock.
  static void write(const std::string& path, const std::string& text) {
    const std::string next = path + ".new" + std::to_string(::getpid());
    std::ofstream(next) << text;
    ::chmod(next.c_str(), 0666);
    ::rename(next.c_str(), path.c_str());
  }

  const fake_nvml::Script script_;
  const uint64_t limit_, kept_;
  const std::string path_, uuid_;
  int lock_ = -1;
};

// True: SIGTERM came.
bool wait_for(double seconds, int signals) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    if (left.count() <= 0) return false;
    pollfd poll{signals, POLLIN, 0};
    if (::poll(&poll, 1, static_cast<int>(std::min<long>(left.count(), 1 << 30))) > 0) return true;
  }
}

bool wait_for(const std::string& fifo, int signals) {
  const int gate = ::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (gate < 0) return false;
  pollfd polls[] = {{signals, POLLIN, 0}, {gate, POLLIN, 0}};
  ::poll(polls, 2, -1);
  ::close(gate);
  return (polls[0].revents & POLLIN) != 0;
}

int run(const Arguments& arguments) {
  fake_nvml::Script script = fake_nvml::read_script(arguments.driver);
  const fake_nvml::Gpu* gpu = visible_gpu(script);
  if (gpu == nullptr || gpu->lost || script.down) {
    std::fprintf(stderr,
                 "CUDA error 100 (cudaErrorNoDevice): no CUDA-capable device is detected\n");
    return kNoDevice;
  }
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  if (arguments.ignore_sigterm) sigemptyset(&set);
  const int signals = ::signalfd(-1, &set, SFD_CLOEXEC);
  std::printf("on %s\n", gpu->uuid.c_str());
  std::fflush(stdout);
  Device device(script, *gpu);
  if (!device.trouble().empty()) return usage(device.trouble());
  bool first = true;
  for (const uint64_t bytes : arguments.bytes) {
    if (!device.take(bytes, std::exchange(first, false))) {
      std::fprintf(
          stderr, "CUDA error 2 (cudaErrorMemoryAllocation): out of memory: %llu bytes asked for\n",
          static_cast<unsigned long long>(bytes));
      return kOutOfMemory;
    }
    const double part = arguments.seconds / static_cast<double>(arguments.bytes.size());
    if (wait_for(part, signals)) return 128 + SIGTERM;
  }
  if (!arguments.until.empty() && wait_for(arguments.until, signals)) return 128 + SIGTERM;
  if (arguments.fault) {
    std::fprintf(stderr, "CUDA error 719 (cudaErrorLaunchFailure): unspecified launch failure\n");
    return kFault;
  }
  return arguments.exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) return usage("--bytes SIZE[,SIZE…] is needed");
  if (arguments.driver.empty()) return usage("--driver or PESC_FAKE_NVML must name the script");
  return run(arguments);
}
