# The functions' addresses are asked of the library that Python's ssl module is linked with, by its own loader, when this
# module is imported: to link with a library of our own could bring in a second one, whose structures are others. Two
# things are taken for granted, and checked with a context of which Python says what is in it: that it is the same copy of
# the library, and that OpenSSL's structure stands in Python's object behind what each object begins with. Where either
# does not hold, or the functions can't be seen, as in a Python that has OpenSSL built in, there is no `openssl_found`.

import ctypes
import os
import ssl
from cpython.object cimport PyObject

cdef enum:
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_SESS_CACHE_MODE = 44
    SSL_CTRL_SET_TLSEXT_SERVERNAME_CB = 53
    SSL_CTRL_SET_TLSEXT_TICKET_KEYS = 59
    TICKET_KEYS = 80            # a name, a key for HMAC, a key for AES
    EX_DATA_SSL = 0             # CRYPTO_EX_INDEX_SSL

TICKET_KEYS_LENGTH = TICKET_KEYS

cdef OpenSsl openssl
cdef int openssl_index = -1     # under which a connection knows its TlsLayer
cdef bint openssl_found = _find_openssl()


cdef void* context_of(object context) except NULL:
    cdef void* inside
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"{type(context).__name__} is no ssl.SSLContext")
    inside = (<void**>(<char*><PyObject*>context + sizeof(PyObject)))[0]
    if inside == NULL:
        raise TypeError("the ssl.SSLContext is not made yet")
    return inside


cdef bint _find_openssl() except -1:
    cdef object library, probe
    if os.environ.get("FASTGATE_TLS") == "python":
        return False                # so that tests see what there is without
    try:
        library = ctypes.CDLL(getattr(ssl._ssl, "__file__", None))
        _take_functions(library)
        if openssl_index <= 0 or library.OpenSSL_version_num() & 0xFFFFFFFF != ssl.OPENSSL_VERSION_NUMBER & 0xFFFFFFFF:
            return False
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if openssl.get_method(context_of(probe)) != openssl.server_method():
            return False            # each copy of the library has a method of its own
        for number in (7, 2):
            probe.num_tickets = number
            if openssl.get_num_tickets(context_of(probe)) != <size_t>number:
                return False
        return openssl.context_control(context_of(probe), SSL_CTRL_SET_TLSEXT_TICKET_KEYS, 0, NULL) == TICKET_KEYS
    except (AttributeError, OSError):
        return False


cdef size_t _function(library, str name) except 0:
    # AttributeError: it has none of that name.
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value


cdef int _take_functions(library) except -1:
    global openssl_index
    openssl.context_control = <long (*)(void*, int, long, const void*) noexcept>_function(library, "SSL_CTX_ctrl")
    openssl.context_callback = <long (*)(void*, int, void (*)() noexcept) noexcept>_function(
        library, "SSL_CTX_callback_ctrl")
    openssl.set_ciphersuites = <int (*)(void*, const char*) noexcept>_function(library, "SSL_CTX_set_ciphersuites")
    openssl.get_num_tickets = <size_t (*)(const void*) noexcept>_function(library, "SSL_CTX_get_num_tickets")
    openssl.get_method = <const void* (*)(const void*) noexcept>_function(library, "SSL_CTX_get_ssl_method")
    openssl.server_method = <const void* (*)() noexcept>_function(library, "TLS_server_method")
    openssl.new = <void* (*)(void*) noexcept>_function(library, "SSL_new")
    openssl.free = <void (*)(void*) noexcept>_function(library, "SSL_free")
    openssl.set_bio = <void (*)(void*, void*, void*) noexcept>_function(library, "SSL_set_bio")
    openssl.set_accept_state = <void (*)(void*) noexcept>_function(library, "SSL_set_accept_state")
    openssl.control = <long (*)(void*, int, long, void*) noexcept>_function(library, "SSL_ctrl")
    openssl.set_context = <void* (*)(void*, void*) noexcept>_function(library, "SSL_set_SSL_CTX")
    openssl.set_ex_data = <int (*)(void*, int, void*) noexcept>_function(library, "SSL_set_ex_data")
    openssl.get_ex_data = <void* (*)(const void*, int) noexcept>_function(library, "SSL_get_ex_data")
    openssl.do_handshake = <int (*)(void*) noexcept>_function(library, "SSL_do_handshake")
    openssl.read_ex = <int (*)(void*, void*, size_t, size_t*) noexcept>_function(library, "SSL_read_ex")
    openssl.write_ex = <int (*)(void*, const void*, size_t, size_t*) noexcept>_function(library, "SSL_write_ex")
    openssl.shutdown = <int (*)(void*) noexcept>_function(library, "SSL_shutdown")
    openssl.get_error = <int (*)(const void*, int) noexcept>_function(library, "SSL_get_error")
    openssl.get_servername = <const char* (*)(const void*, int) noexcept>_function(library, "SSL_get_servername")
    openssl.get_version = <const char* (*)(const void*) noexcept>_function(library, "SSL_get_version")
    openssl.get_current_cipher = <const void* (*)(const void*) noexcept>_function(library, "SSL_get_current_cipher")
    openssl.cipher_name = <const char* (*)(const void*) noexcept>_function(library, "SSL_CIPHER_get_name")
    openssl.session_reused = <int (*)(const void*) noexcept>_function(library, "SSL_session_reused")
    openssl.get_verify_result = <long (*)(const void*) noexcept>_function(library, "SSL_get_verify_result")
    openssl.verify_words = <const char* (*)(long) noexcept>_function(library, "X509_verify_cert_error_string")
    # Named SSL_get_peer_certificate before OpenSSL 3.
    openssl.get_peer_certificate = <void* (*)(const void*) noexcept>_function(
        library,
        "SSL_get1_peer_certificate" if hasattr(library, "SSL_get1_peer_certificate") else "SSL_get_peer_certificate")
    openssl.certificate_der = <int (*)(const void*, unsigned char**) noexcept>_function(library, "i2d_X509")
    openssl.free_certificate = <void (*)(void*) noexcept>_function(library, "X509_free")
    openssl.memory_method = <const void* (*)() noexcept>_function(library, "BIO_s_mem")
    openssl.new_bio = <void* (*)(const void*) noexcept>_function(library, "BIO_new")
    openssl.free_bio = <int (*)(void*) noexcept>_function(library, "BIO_free")
    openssl.bio_write = <int (*)(void*, const void*, int) noexcept>_function(library, "BIO_write")
    openssl.bio_read = <int (*)(void*, void*, int) noexcept>_function(library, "BIO_read")
    openssl.bio_pending = <size_t (*)(void*) noexcept>_function(library, "BIO_ctrl_pending")
    openssl.peek_error = <unsigned long (*)() noexcept>_function(library, "ERR_peek_error")
    openssl.peek_last_error = <unsigned long (*)() noexcept>_function(library, "ERR_peek_last_error")
    openssl.clear_error = <void (*)() noexcept>_function(library, "ERR_clear_error")
    openssl.reason_words = <const char* (*)(unsigned long) noexcept>_function(library, "ERR_reason_error_string")
    openssl_index = library.CRYPTO_get_ex_new_index(EX_DATA_SSL, 0, None, None, None, None)
    return 0


def set_ciphersuites(context not None, str suites not None):
    cdef bytes names = suites.encode()
    if not openssl_found:
        return False
    if openssl.set_ciphersuites(context_of(context), PyBytes_AS_STRING(names)) == 1:
        return True
    openssl.clear_error()           # or Python would find it, and take it for another's
    return False


def set_ticket_keys(context not None, bytes keys not None):
    if not openssl_found or len(keys) != TICKET_KEYS:
        return False
    openssl.context_control(context_of(context), SSL_CTRL_SET_SESS_CACHE_MODE, 0, NULL)
    return openssl.context_control(
        context_of(context), SSL_CTRL_SET_TLSEXT_TICKET_KEYS, TICKET_KEYS, PyBytes_AS_STRING(keys)) == 1
