# OpenSSL itself, for what Python's ssl module has no call for, or none that is quick: the functions of the library that
# the module has loaded, called with the structures of its contexts. Structures are opaque here.

cdef struct OpenSsl:
    # -- contexts
    long (*context_control)(void* context, int command, long number, const void* data) noexcept
    long (*context_callback)(void* context, int command, void (*callback)() noexcept) noexcept
    int (*set_ciphersuites)(void* context, const char* names) noexcept
    size_t (*get_num_tickets)(const void* context) noexcept
    const void* (*get_method)(const void* context) noexcept
    const void* (*server_method)() noexcept
    # -- a connection. `new` returns NULL without memory; `free` takes the BIOs along.
    void* (*new)(void* context) noexcept
    void (*free)(void* connection) noexcept
    void (*set_bio)(void* connection, void* incoming, void* outgoing) noexcept
    void (*set_accept_state)(void* connection) noexcept
    long (*control)(void* connection, int command, long number, void* data) noexcept
    void* (*set_context)(void* connection, void* context) noexcept
    int (*set_ex_data)(void* connection, int index, void* data) noexcept
    void* (*get_ex_data)(const void* connection, int index) noexcept
    # -- what it does; other results than 1 are for `get_error`
    int (*do_handshake)(void* connection) noexcept
    int (*read_ex)(void* connection, void* room, size_t length, size_t* got) noexcept
    int (*write_ex)(void* connection, const void* data, size_t length, size_t* written) noexcept
    int (*shutdown)(void* connection) noexcept
    int (*get_error)(const void* connection, int result) noexcept
    # -- what it knows
    const char* (*get_servername)(const void* connection, int kind) noexcept
    const char* (*get_version)(const void* connection) noexcept
    const void* (*get_current_cipher)(const void* connection) noexcept
    const char* (*cipher_name)(const void* cipher) noexcept
    int (*session_reused)(const void* connection) noexcept
    long (*get_verify_result)(const void* connection) noexcept
    const char* (*verify_words)(long result) noexcept
    void* (*get_peer_certificate)(const void* connection) noexcept      # the caller's to be freed
    int (*certificate_der)(const void* certificate, unsigned char** out) noexcept
    void (*free_certificate)(void* certificate) noexcept
    # -- memory BIOs
    const void* (*memory_method)() noexcept
    void* (*new_bio)(const void* method) noexcept
    int (*free_bio)(void* bio) noexcept
    int (*bio_write)(void* bio, const void* data, int length) noexcept
    int (*bio_read)(void* bio, void* room, int length) noexcept
    size_t (*bio_pending)(void* bio) noexcept
    # -- this thread's queue of errors, which must be empty before whatever `get_error` is asked about
    unsigned long (*peek_error)() noexcept
    unsigned long (*peek_last_error)() noexcept
    void (*clear_error)() noexcept
    const char* (*reason_words)(unsigned long error) noexcept

# The structure inside an ssl.SSLContext, which lives as long as that or a connection of it. TypeError for anything else.
cdef void* context_of(object context) except NULL
