//! One message on one line, in the notation of the RFC: `IKE_SA_INIT request 0 [ SA KE No ]`.
