// A few RAII wrappers over SQLite's C interface, with its errors as absl::Status. Used by the
// journal only.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pesc::coordinator {

// ResourceExhausted for a full disk, DataLoss for a damaged file, else Unavailable.
absl::Status sqlite_status(sqlite3* db, int code, std::string_view doing);

class Statement {
 public:
  Statement() = default;
  static absl::StatusOr<Statement> prepare(sqlite3* db, const char* sql);

  // Parameters are numbered from 1. Text and bytes must live until the next reset.
  void bind(int index, int64_t value) { sqlite3_bind_int64(get(), index, value); }
  void bind_u64(int index, uint64_t value) { bind(index, static_cast<int64_t>(value)); }
  void bind_bytes(int index, std::string_view bytes);
  void bind_null(int index) { sqlite3_bind_null(get(), index); }

  // True: a row is there; false: done.
  absl::StatusOr<bool> next();
  // Runs a statement that returns no rows, and makes it ready for the next run.
  absl::Status run();
  void reset() { sqlite3_reset(get()); }

  int64_t integer(int column) const { return sqlite3_column_int64(get(), column); }
  uint64_t u64(int column) const { return static_cast<uint64_t>(integer(column)); }
  bool is_integer(int column) const { return sqlite3_column_type(get(), column) == SQLITE_INTEGER; }
  bool is_null(int column) const { return sqlite3_column_type(get(), column) == SQLITE_NULL; }
  std::string_view bytes(int column) const;  // until the next step

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  sqlite3_stmt* get() const { return statement_.get(); }
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// Ends a read's transaction on every way out: a statement left open would pin the WAL.
class ResetOnExit {
 public:
  explicit ResetOnExit(Statement& statement) : statement_(statement) {}
  ~ResetOnExit() { statement_.reset(); }
  ResetOnExit(const ResetOnExit&) = delete;
  ResetOnExit& operator=(const ResetOnExit&) = delete;

 private:
  Statement& statement_;
};

class Database {
 public:
  // `vfs`: SQLite's file system; empty: the real one.
  static absl::StatusOr<Database> open(const std::filesystem::path& path, bool read_only,
                                       const std::string& vfs = {});
  sqlite3* get() const { return db_.get(); }
  absl::Status execute(const char* sql);
  absl::StatusOr<int64_t> query_integer(const char* sql);
  absl::StatusOr<std::string> query_text(const char* sql);  // the first column of all rows, by line

 private:
  struct Close {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
  };
  std::unique_ptr<sqlite3, Close> db_;
};

}  // namespace pesc::coordinator
