# Part of lane.pyx: one socket, written to directly as long as it takes everything at once.
#
# The loop's transport reads, and it writes what the socket did not take: only then is anything copied. ``queued``
# stays set until the transport says that it is empty (its high-water mark is 0), so the order of bytes is kept.

cdef class Wire(Timed):
    def __cinit__(self):
        self.fd = -1

    cdef int attach(self, object transport) except -1:
        """``transport``: a stream transport of the loop."""
        self.transport = transport
        transport.set_write_buffer_limits(0)
        if transport.get_extra_info("ssl_object") is None:
            found = transport.get_extra_info("socket")
            if found is not None:
                self.fd = found.fileno()
        return 0

    cdef int drop(self) except -1:
        if self.transport is not None:
            self.transport.abort()
        return 0

    cdef int send(self, iovec *parts, int count, Py_ssize_t size) except -1:
        """Write parts with ``size`` bytes in all; 0 where the socket is broken."""
        cdef msghdr message
        cdef Py_ssize_t sent = 0
        cdef unsigned char *at
        cdef bytes rest
        cdef int i
        if self.transport is None:
            return 0
        if self.fd >= 0 and not self.queued:
            memset(&message, 0, sizeof(msghdr))
            message.msg_iov = parts
            message.msg_iovlen = count
            sent = agw_sendmsg(self.fd, &message)
            if sent == size:
                return 1
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.transport.abort()
                    return 0
                sent = 0
        rest = PyBytes_FromStringAndSize(NULL, size - sent)
        at = <unsigned char *>PyBytes_AS_STRING(rest)
        for i in range(count):
            if sent >= <Py_ssize_t>parts[i].iov_len:
                sent -= parts[i].iov_len
                continue
            memcpy(at, <unsigned char *>parts[i].iov_base + sent, parts[i].iov_len - sent)
            at += parts[i].iov_len - sent
            sent = 0
        self.transport.write(rest)
        self.queued = self.transport.get_write_buffer_size() > 0
        return 1

    cdef int send_bytes(self, bytes data) except -1:
        cdef iovec part
        part.iov_base = <void *>PyBytes_AS_STRING(data)
        part.iov_len = PyBytes_GET_SIZE(data)
        return self.send(&part, 1, PyBytes_GET_SIZE(data)) if part.iov_len else 1
