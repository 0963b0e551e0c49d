//! Claims about replicas, alone and in a simulated cluster.

mod agreement;
mod campaigns;
mod changes;
mod frozen;
mod hostile;
mod reads;
mod world;
