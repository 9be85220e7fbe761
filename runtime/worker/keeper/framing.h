// Cap'n Proto stream framing over buffers: used by the keeper and by its client.
#pragma once

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/io.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pesc::keeper {

inline constexpr uint32_t kProtocolVersion = 1;
// No message of the protocol comes near it; a larger one is not from a keeper or its worker.
inline constexpr size_t kMaxMessageBytes = size_t{256} << 20;

// Collects messages for one send.
class Outbox final : public kj::OutputStream {
 public:
  void add(capnp::MessageBuilder& message) { capnp::writeMessage(*this, message); }
  bool empty() const { return bytes_.empty(); }
  size_t size() const { return bytes_.size(); }
  void swap(std::string& other) { bytes_.swap(other); }

  void write(const void* buffer, size_t size) override {
    bytes_.append(static_cast<const char*>(buffer), size);
  }
#if CAPNP_VERSION >= 2000000
  void write(kj::ArrayPtr<const kj::byte> data) override { write(data.begin(), data.size()); }
#endif

 private:
  std::string bytes_;
};

// Takes bytes as they come and gives whole messages. Word-aligned, as Cap'n Proto needs it.
class Inbox {
 public:
  // Where to read the next bytes to.
  std::span<char> space() {
    if (begin_ > 0 && begin_ == end_) begin_ = end_ = 0;
    if (words_.size() * 8 - end_ < kReadBytes) make_room();
    return {base() + end_, words_.size() * 8 - end_};
  }
  void received(size_t bytes) { end_ += bytes; }

  enum class State { incomplete, message, invalid };
  // On `message`, `next` is valid until the next call of space().
  State take(kj::ArrayPtr<const capnp::word>& next) {
    size_t available = (end_ - begin_) / 8;
    auto* first = reinterpret_cast<const capnp::word*>(base() + begin_);
    if (available == 0) return State::incomplete;
    size_t wanted = capnp::expectedSizeInWordsFromPrefix(kj::arrayPtr(first, available));
    if (wanted > kMaxMessageBytes / 8) return State::invalid;
    if (available < wanted) return State::incomplete;
    next = kj::arrayPtr(first, wanted);
    begin_ += wanted * 8;
    return State::message;
  }

 private:
  static constexpr size_t kReadBytes = 64 << 10;

  char* base() { return reinterpret_cast<char*>(words_.data()); }
  void make_room() {
    if (begin_ > 0) {
      std::memmove(base(), base() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    if (words_.size() * 8 - end_ < kReadBytes) words_.resize(words_.size() * 2 + kReadBytes / 8);
  }

  std::vector<uint64_t> words_;
  size_t begin_ = 0, end_ = 0;
};

inline capnp::ReaderOptions reader_options() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 2 * kMaxMessageBytes / 8;
  return options;
}

inline capnp::Data::Reader as_data(std::string_view text) {
  return {reinterpret_cast<const kj::byte*>(text.data()), text.size()};
}
inline std::string as_string(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}

}  // namespace pesc::keeper
